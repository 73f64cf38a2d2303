"""What a user is promised about queued runs: workers come and go with the work, and nothing is lost."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psycopg
import pytest

from tests.acceptance.conftest import Sage
from tests.postgres import schema_url

#: Rows that take a while, so that there is time to kill somebody.
WORKFLOW = """
sage = 1
name = "slow"

[steps.rows]
use = "nap.rows"
with = { n = 12 }

[steps.nap]
use = "nap.nap"
in = { text = "rows.text" }
with = { seconds = 0.2 }
partition = 1

[outputs]
texts = "nap"
"""

#: A plugin of the user's own, in the folder of the workflow.
PLUGIN = """
import asyncio
from collections.abc import Iterator

from sage_core import Dataset, hookimpl, operator


@operator("nap.rows", returns="text")
def rows(*, n: int) -> Iterator[str]:
    yield from (f"row {number}" for number in range(n))


@operator("nap.nap", returns="text")
async def nap(text: str, *, seconds: float) -> str:
    await asyncio.sleep(seconds)
    return text


@operator("nap.count", returns="count")
def count(texts: Dataset[str]) -> int:
    return len(texts)


@hookimpl
def sage_operators():
    return {"nap.rows": "nap_plugin:rows", "nap.nap": "nap_plugin:nap", "nap.count": "nap_plugin:count"}
"""

ENQUEUE = """
import sys
from pathlib import Path
from sage_core.builtins import default_host
from sage_core.kernel.runtime import launch
from sage_core.kernel.runtime.submit import Order
host, project = default_host(), launch.find_project(Path.cwd())
graph, run_id = launch.load(Path(sys.argv[1]), host, project), launch.new_run_id()
prepared = launch.bind(graph, {}, host, project, run_id=run_id)
print(launch.enqueue(graph, prepared, run_id, host=host, project=project, order=Order()))
"""


@pytest.fixture
def slow(sage: Sage, tmp_path: Path) -> Sage:
    """The workflow, and its plugin as a distribution that every process of the test finds."""
    (sage.cwd / "slow.toml").write_text(WORKFLOW)
    site = tmp_path / "site"
    info = site / "sage_nap-1.0.dist-info"
    info.mkdir(parents=True)
    (site / "nap_plugin.py").write_text(PLUGIN)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: sage-nap\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[sage]\nnap = nap_plugin\n")
    (info / "RECORD").write_text("")
    sage.environ["PYTHONPATH"] = str(site)
    sage.environ["SAGE_PLUGINS"] = "nap"
    return sage


def enqueue(sage: Sage) -> str:
    command = [sys.executable, "-c", ENQUEUE, "slow.toml"]
    done = subprocess.run(command, cwd=sage.cwd, env=sage.environ, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def wait_for(condition: Callable[[], Any], what: str, seconds: float = 60) -> Any:
    give_up = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < give_up, f"never happened: {what}"
        # The event is another process's commit; there is nothing of ours to wait on.
        threading.Event().wait(0.02)
    return found


def asked(sage: Sage, statement: str) -> list[tuple[Any, ...]]:
    """What the database says behind the command's back."""
    with contextlib.closing(sqlite3.connect(sage.home / "project" / "sage.db", timeout=5)) as db:
        return db.execute(statement).fetchall()


def shown(sage: Sage, run_id: str) -> Any:
    return sage.json("runs", "show", run_id)


TEXTS = [f"row {number}" for number in range(12)]


@pytest.mark.timeout(120)
def test_a_queued_run_is_done_by_a_worker_that_leaves_afterwards(slow: Sage) -> None:
    run_id = enqueue(slow)
    assert shown(slow, run_id)["status"] == "queued"

    farewell = slow.json("worker", "--until-idle", "1s")

    assert farewell["reason"] == "idle"
    assert farewell["queues"]["default"]["died"] == 0
    run = shown(slow, run_id)
    assert (run["status"], run["outputs"]) == ("succeeded", {"texts": TEXTS})
    assert asked(slow, "select count(*) from worker where stopped_at is null") == [(0,)]
    phases = [json.loads(found) for (found,) in asked(slow, "select phases from worker where kind = 'worker'")]
    assert any(set(found) == {"spawn", "import", "plugins"} for found in phases)


@pytest.mark.timeout(120)
def test_a_worker_killed_in_the_middle_of_a_job_loses_nothing(slow: Sage) -> None:
    run_id = enqueue(slow)
    child = slow.start("worker", "--until-idle", "1s", "--json")
    busy = "select pid from worker, job where worker.id = job.worker and state = 'running' and stage = 'nap'"
    ((pid,), *_) = wait_for(lambda: asked(slow, busy), "a job at work")
    os.kill(pid, signal.SIGKILL)
    out, err = child.communicate(timeout=60)

    assert child.returncode == 0, err
    assert json.loads(out)["queues"]["default"]["died"] == 1
    run = shown(slow, run_id)
    assert (run["status"], run["outputs"]) == ("succeeded", {"texts": TEXTS})
    assert asked(slow, "select count(*) from attempt where outcome = 'lost'") == [(1,)]


@pytest.mark.timeout(120)
def test_a_worker_that_is_told_to_leave_gives_its_attempts_back(slow: Sage) -> None:
    run_id = enqueue(slow)
    child = slow.start("worker")
    running = "select 1 from job where state = 'running' and stage = 'nap'"
    wait_for(lambda: asked(slow, running), "a job at work")
    child.send_signal(signal.SIGTERM)
    out, err = child.communicate(timeout=60)

    assert child.returncode == 0, err
    assert "left, because it was told to" in out
    assert asked(slow, "select count(*) from job where state = 'running'") == [(0,)]
    assert asked(slow, "select max(attempt) from job where state = 'ready'") == [(0,)]
    assert shown(slow, run_id)["status"] == "running"

    slow("worker", "--until-idle", "1s")
    assert shown(slow, run_id)["outputs"] == {"texts": TEXTS}


@pytest.mark.timeout(120)
def test_two_signals_end_a_worker_at_once(slow: Sage) -> None:
    enqueue(slow)
    child = slow.start("worker", "--grace", "60s")
    ((pid,), *_) = wait_for(lambda: asked(slow, "select pid from worker where kind = 'worker'"), "a worker process")
    # One that does not listen, so that the first signal alone would take the whole grace.
    os.kill(pid, signal.SIGSTOP)
    child.send_signal(signal.SIGTERM)
    # Another signal than the first, because two of one kind may arrive as one.
    child.send_signal(signal.SIGINT)
    _, err = child.communicate(timeout=30)

    assert child.returncode == 130, err
    assert asked(slow, "select count(*) from job where state = 'running'") == [(0,)]


@pytest.mark.timeout(180)
def test_a_postgres_that_cuts_every_connection_costs_no_job_and_no_worker(slow: Sage, tmp_path: Path) -> None:
    url = schema_url(tmp_path)
    (slow.cwd / "sage.toml").write_text(f"[store]\nurl = {json.dumps(url)}\n[workers]\ncount = 2\n")
    run_id = enqueue(slow)
    child = slow.start("worker", "--until-idle", "2s", "--json")
    cuts = 0
    with psycopg.connect(url, autocommit=True) as db:
        wait_for(lambda: db.execute("select 1 from job where state = 'running'").fetchone(), "a job at work")
        for _ in range(6):
            threading.Event().wait(0.2)
            cut = db.execute("select pg_terminate_backend(pid) from pg_stat_activity where application_name = 'sage'")
            cuts += len(cut.fetchall())
        out, err = child.communicate(timeout=120)
        outcomes: dict[str, int] = dict(db.execute("select outcome, count(*) from attempt group by outcome").fetchall())

    assert child.returncode == 0, err
    assert json.loads(out)["queues"]["default"]["died"] == 0
    assert cuts >= 3
    run = shown(slow, run_id)
    assert (run["status"], run["outputs"]) == ("succeeded", {"texts": TEXTS})
    assert outcomes["done"] == 13
    assert set(outcomes) <= {"done", "given_back"}, "no attempt was spent"


@pytest.mark.timeout(180)
def test_a_machine_that_dies_leaves_its_run_to_another_over_one_postgres(slow: Sage, tmp_path: Path) -> None:
    url = schema_url(tmp_path)
    (slow.cwd / "sage.toml").write_text(
        f"[store]\nurl = {json.dumps(url)}\n[workers]\ncount = 2\nlease = 1.0\n[cluster]\nsilence = 2.0\n"
    )
    other = slow.at(tmp_path / "home2")
    run_id = enqueue(slow)
    first = slow.start("worker", "--node", "one")
    wait_for(lambda: shown(slow, run_id)["jobs"].get("done", 0) >= 2, "some of it is done")
    second = other.start("worker", "--node", "two", "--until-idle", "2s", "--json")
    # The whole machine at once: supervisor and workers, without a goodbye.
    os.killpg(first.pid, signal.SIGKILL)
    first.communicate()
    out, err = second.communicate(timeout=120)

    assert second.returncode == 0, err
    assert json.loads(out)["node"] == "two"
    run = shown(other, run_id)
    assert (run["status"], run["outputs"]) == ("succeeded", {"texts": TEXTS})


def test_a_second_worker_for_a_queue_of_one_node_is_refused(slow: Sage) -> None:
    child = slow.start("worker")
    wait_for(lambda: (slow.home / "project" / "sage.db").exists(), "a store")
    wait_for(lambda: asked(slow, "select 1 from sqlite_master where name = 'node'"), "its tables")
    wait_for(lambda: asked(slow, "select 1 from node"), "the node is announced")

    refused = slow("worker", code=2)

    assert f"serves queue 'default' already (process {child.pid} on " in refused.stderr
    assert "--node NAME" in refused.stderr
    child.send_signal(signal.SIGINT)
    out, _ = child.communicate(timeout=30)
    assert (child.returncode, "left, because it was told to" in out) == (0, True)


@pytest.mark.timeout(120)
def test_single_jobs_are_cancelled_and_their_run_ends_without_them(slow: Sage) -> None:
    tree = WORKFLOW.replace("n = 12", "n = 3").replace("seconds = 0.2", "seconds = 4") + "\n"
    gathered = '[steps.all]\nuse = "nap.count"\nin = { texts = "nap.text" }\n\n[outputs]\ncount = "all"\n'
    tree = tree.replace("partition = 1", 'partition = 1\non_error = "skip"').replace("[outputs]\n", gathered)
    (slow.cwd / "slow.toml").write_text(tree)
    run_id = enqueue(slow)
    child = slow.start("worker", "--until-idle", "1s", "--json")
    jobs = "select id from job where stage = 'nap' and state = '{}' order by id"
    wait_for(lambda: len(asked(slow, jobs.format("running"))) == 2, "two jobs at work")
    ((running,), _), ((queued,),) = asked(slow, jobs.format("running")), asked(slow, jobs.format("ready"))

    found = slow.json("jobs", "cancel", str(running), str(queued))

    assert [(each["job"], each["state"], each["failures"]) for each in found] == [
        (running, "done", 1),
        (queued, "done", 1),
    ]
    _, err = child.communicate(timeout=60)
    assert child.returncode == 0, err
    run = shown(slow, run_id)
    assert (run["status"], run["outputs"]["count"]) == ("partial", 1)
    assert {failure["kind"] for failure in run["failures"]} == {"JobCancelled"}
    # The one that ran was told, and has not recorded anything.
    history = slow.json("jobs", "show", str(running))["attempts"]
    assert [each["outcome"] for each in history] == ["cancelled"]


@pytest.mark.timeout(120)
@pytest.mark.parametrize("driven", [False, True], ids=["cancelled", "left by one who drove it"])
def test_a_queued_run_that_is_resumed_goes_back_to_its_queue(slow: Sage, driven: bool) -> None:
    (slow.cwd / "sage.toml").write_text("[queues.default]\nidle = 0.5\n")
    run_id = enqueue(slow)
    if driven:
        with contextlib.closing(sqlite3.connect(slow.home / "project" / "sage.db")) as db, db:
            db.execute("update run set status = 'running', supervisor = 'gone'")
    else:
        slow("runs", "cancel", run_id)
    assert "leave out --workers" in slow("runs", "resume", run_id, "--inline", code=2).stderr

    waiting = slow.start("runs", "resume", run_id)
    wait_for(lambda: asked(slow, "select 1 from job where state = 'done' and stage = 'nap'"), "a row is done")
    waiting.send_signal(signal.SIGINT)
    _, err = waiting.communicate(timeout=30)
    assert (waiting.returncode, f"note: run {run_id} goes on without you" in err) == (130, True)

    # It is at work already, so this only waits.
    resumed = slow.json("runs", "resume", run_id)
    assert (resumed["status"], resumed["outputs"]) == ("succeeded", {"texts": TEXTS})
    assert asked(slow, "select session, supervisor, queue from run") == [(2, "", "default")]
    kinds = "select distinct kind from attempt, worker where worker.id = attempt.worker and outcome = 'done'"
    assert asked(slow, kinds) == [("worker",)]
    assert asked(slow, "select announced from run") == [(2,)]
    wait_for(lambda: not asked(slow, "select 1 from worker where stopped_at is null"), "everybody has left")


@pytest.mark.timeout(120)
def test_a_paused_queue_with_jobs_costs_no_processor_time(slow: Sage) -> None:
    (slow.cwd / "sage.toml").write_text("[queues.default]\nmin = 1\n")
    enqueue(slow)
    slow("queues", "pause", "default")
    child = slow.start("worker")
    workers = "select pid from worker where kind = 'worker' and stopped_at is null"
    ((pid,), *_) = wait_for(lambda: asked(slow, workers), "a worker that stays")
    spent = {each: ticks(each) for each in (child.pid, pid)}
    since = time.monotonic()
    threading.Event().wait(4)
    share = {each: (ticks(each) - spent[each]) / (time.monotonic() - since) for each in spent}
    child.send_signal(signal.SIGTERM)
    child.communicate(timeout=30)
    print(share)
    # Far from what a loop without a rest takes; the aim is measured where nothing else runs.
    assert all(each < 0.1 for each in share.values()), share


def ticks(pid: int) -> float:
    """Seconds of a processor that a process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@pytest.mark.timeout(120)
@pytest.mark.parametrize(
    ("how", "store"),
    [("--inline", "sqlite"), ("--workers=1", "sqlite"), ("queued", "sqlite"), ("queued", "postgresql")],
)
def test_an_attempt_beyond_its_deadline_is_ended_and_tried_again(
    slow: Sage, tmp_path: Path, store: str, how: str
) -> None:
    url = f'[store]\nurl = "{schema_url(tmp_path)}"\n' if store == "postgresql" else ""
    (slow.cwd / "sage.toml").write_text(f"{url}[workers]\ndeadline = 0.5\n")
    tree = WORKFLOW.replace("n = 12", "n = 1").replace("seconds = 0.2", "seconds = 60")
    (slow.cwd / "slow.toml").write_text(tree.replace("partition = 1", "retry = { max = 1 }"))
    if how == "queued":
        run_id = enqueue(slow)
        slow("worker", "--until-idle", "1s")
    else:
        failed = slow.json("run", "slow.toml", how, code=1)
        run_id = failed["run_id"]

    run = shown(slow, run_id)
    said = "timed out after 0.5 s, the [workers] deadline of an attempt"
    assert (run["status"], run["error"]) == ("failed", f"{said} (attempt 2 of 2)")
    (job,) = slow.json("jobs", "list", "--run", run_id, "--state", "failed")
    history = slow.json("jobs", "show", str(job["job"]))["attempts"]
    assert [(each["attempt"], each["outcome"]) for each in history] == [(1, "timeout"), (2, "timeout")]
    assert history[0]["error"] == said
