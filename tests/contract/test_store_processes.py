"""The store in several processes at once, some of which are killed."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from sage_core.common.errors import StaleAttempt
from sage_core.platform.spelling import DIALECTS
from sage_core.platform.store import JobStore
from sage_core.testing.store_suite import LONG, OVER, finish, row, submit
from tests.postgres import schema_url

CREATE = """
import sys
from sage_core.platform.store import JobStore
sys.stdin.readline()
with JobStore.open(sys.argv[1]) as store:
    print(len(store.runs()))
"""

WORK = """
import json, sys
from sage_core.platform.store import JobStore
url, name = sys.argv[1:]
sys.stdin.readline()
done = []
with JobStore.open(url) as store:
    while jobs := store.claim(name, lease_ms=600_000, limit=4):
        with store.transaction() as tx:
            for job in jobs:
                tx.finish(job.id, job.fence, result_key=None, session=1)
                done.append((job.id, job.fence))
            tx.release([job.id for job in jobs])
print(json.dumps(done))
"""

HOLD = """
import sys
from sage_core.platform.store import JobStore
with JobStore.open(sys.argv[1]) as store:
    [job] = store.claim("held", lease_ms=int(sys.argv[2]))
    with store.transaction() as tx:
        tx.put_result("key", b"body", run_id="run")
        tx.finish(job.id, job.fence, result_key="key", session=1)
        tx.release([job.id])
        print("inside", flush=True)
        sys.stdin.readline()
"""

ONCE = """
import sys
from sage_core.platform.records import NewRun
from sage_core.platform.store import JobStore
url, name, policy = sys.argv[1:]
with JobStore.open(url) as store:
    print("open", flush=True)
    sys.stdin.readline()
    with store.transaction() as tx:
        print(tx.insert_run(NewRun(id=name, workflow="flow", unique_key="nightly"), on_conflict=policy))
"""

LATE = """
import sys
from sage_core.platform.store import JobStore
with JobStore.open(sys.argv[1]) as store:
    [job] = store.claim("late", lease_ms=0)
    print("claimed", flush=True)
    sys.stdin.readline()
    with store.transaction() as tx:
        tx.put_result("late", b"body", run_id="run")
        tx.finish(job.id, job.fence, result_key="late", session=1)
"""


def start(script: str, *arguments: str) -> subprocess.Popen[str]:
    pipe = subprocess.PIPE
    return subprocess.Popen([sys.executable, "-c", script, *arguments], stdin=pipe, stdout=pipe, stderr=pipe, text=True)


@pytest.fixture(params=DIALECTS)
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path}/sage.db" if request.param == "sqlite" else schema_url(tmp_path)


def test_processes_may_create_the_store_at_once(url: str) -> None:
    children = [start(CREATE, url) for _ in range(4)]
    answers = [child.communicate("go\n") for child in children]
    assert answers == [("0\n", "")] * 4


def test_processes_never_share_a_job(url: str) -> None:
    with JobStore.open(url) as store:
        ids = submit(store, 300)
        children = [start(WORK, url, f"w{n}") for n in range(3)]
        answers = [child.communicate("go\n") for child in children]
        assert [error for _, error in answers] == [""] * 3
        done = sorted(tuple(pair) for answer, _ in answers for pair in json.loads(answer))
        assert done == [(id, 1) for id in ids]
        assert store.counts("run") == {"done": 300}


@pytest.mark.parametrize("policy", ["ignore", "replace"])
def test_processes_that_enqueue_one_key_make_one_run(policy: str, url: str) -> None:
    with JobStore.open(url) as store:
        children = [start(ONCE, url, f"r{n}", policy) for n in range(3)]
        for child in children:
            assert child.stdout is not None
            assert child.stdout.readline() == "open\n"
        for child in children:
            assert child.stdin is not None
            child.stdin.write("go\n")
            child.stdin.flush()
        answers = [child.communicate() for child in children]
        assert [error for _, error in answers] == [""] * 3
        [live] = [run.id for run in store.runs() if run.status == "queued"]
        if policy == "ignore":
            assert sorted(answer for answer, _ in answers) == sorted(["None\n", f"{live}\n", f"{live}\n"])
        else:
            assert sorted(run.status for run in store.runs()) == ["cancelled", "cancelled", "queued"]


def test_a_process_killed_inside_a_completion_leaves_nothing(url: str) -> None:
    with JobStore.open(url) as store:
        [id] = submit(store)
        child = start(HOLD, url, str(OVER))
        assert child.stdout is not None
        assert child.stdout.readline() == "inside\n"
        child.send_signal(signal.SIGKILL)
        child.communicate()
        assert (row(store, id).state, store.results(["key"])) == ("running", {})
        [job] = store.claim("next", lease_ms=LONG)
        assert (job.id, job.fence) == (id, 2)
        finish(store, job)
        assert row(store, id).state == "done"


def test_a_process_stopped_beyond_its_lease_cannot_publish(url: str) -> None:
    with JobStore.open(url) as store:
        [id] = submit(store)
        child = start(LATE, url)
        assert child.stdout is not None
        assert child.stdout.readline() == "claimed\n"
        child.send_signal(signal.SIGSTOP)
        [job] = store.claim("next", lease_ms=LONG)
        finish(store, job, "mine")
        child.send_signal(signal.SIGCONT)
        _, error = child.communicate("go\n")
        assert StaleAttempt.__name__ in error
        assert f"job {id}: fence 1 is stale" in error
        assert (row(store, id).result_key, store.results(["late", "mine"])) == ("mine", {"mine": b"body"})
