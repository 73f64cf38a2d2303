"""What the contract suite cannot see: what opening a store costs, and who may drive a run."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from sage_core.common.errors import UsageError
from sage_core.platform.processes import this_process
from sage_core.platform.records import NewRun
from sage_core.platform.store import JobStore
from sage_core.testing.store_suite import LONG, row, submit

OPEN = """
import sys
from sage_core.platform.store import JobStore
from sage_core.platform.records import NewRun
with JobStore.open(sys.argv[1]) as store, store.transaction() as tx:
    tx.insert_run(NewRun(id=sys.argv[2], workflow="flow"))
heavy = {"sqlalchemy", "alembic", "pyarrow", "numpy", "socket", "asyncio"}
print(sorted(heavy & {name.partition(".")[0] for name in sys.modules}))
"""


def test_neither_a_first_nor_a_later_run_imports_what_is_slow(tmp_path: Path) -> None:
    for run_id in ("first", "later"):
        command = [sys.executable, "-c", OPEN, f"sqlite:///{tmp_path}/s.db", run_id]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        assert done.stdout == "[]\n"


@pytest.fixture
def store(tmp_path: Path) -> JobStore:
    return JobStore.open(f"sqlite:///{tmp_path}/s.db")


def test_a_killed_supervisors_run_can_be_resumed(store: JobStore) -> None:
    me = this_process("supervisor")
    dead = msgspec.structs.replace(me, id="dead", ticks=me.ticks + 1)
    live = msgspec.structs.replace(me, id="live", kind="worker")
    ids = submit(store, 2)
    for worker in (dead, live):
        store.register_worker(worker)
    with store.transaction() as tx:
        tx.drive_run("run", "dead", session=1)
    store.claim("dead", lease_ms=LONG)
    [kept] = store.claim("live", lease_ms=LONG)
    assert store.resume_run("run", supervisor=me.id) == 2
    # The dead process's job is free, the orphan's is still its own.
    assert (row(store, ids[0]).state, row(store, ids[1]).state) == ("ready", "running")
    assert store.renew([(kept.id, kept.fence)], LONG) == {ids[1]}
    assert [worker.id for worker in store.live_workers()] == ["live"]
    store.close()


def test_a_silent_worker_elsewhere_is_dead_only_after_a_while(store: JobStore) -> None:
    away = msgspec.structs.replace(this_process("supervisor"), id="away", host="elsewhere")
    submit(store)
    store.register_worker(away)
    with store.transaction() as tx:
        tx.drive_run("run", "away", session=1)
    with pytest.raises(UsageError, match=r"being driven by process .* on elsewhere"):
        store.resume_run("run")
    store._db.run("UPDATE worker SET heartbeat_at = heartbeat_at - 100000")
    assert store.resume_run("run") == 2
    store.close()


def test_a_handle_belongs_to_one_transaction_at_a_time(store: JobStore) -> None:
    with store.transaction() as tx:
        tx.insert_run(NewRun(id="r", workflow="flow"))
        assert [run.id for run in store.runs()] == ["r"]
    assert not store.changed()
    store.close()
