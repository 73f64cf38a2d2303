"""Tests of sage_core.kernel.runtime.worker: when it works, waits and leaves."""

from __future__ import annotations

import asyncio
import json
import os
import types
from collections.abc import Iterator
from pathlib import Path

import pytest

from sage_core.kernel.runtime import launch, worker
from sage_core.kernel.runtime.submit import Order
from sage_core.platform.records import NewRun
from sage_core.platform.store import JobStore
from sage_core.testing.flows import Flows
from tests.unit.kernel.runtime import drive_operators
from tests.unit.kernel.runtime.queued import enqueue, numbers, worker_of


@pytest.fixture
def flows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Flows:
    # A worker works in the folder of its run, and these work in the test's process.
    monkeypatch.chdir(tmp_path)
    return Flows(tmp_path, {"driven": drive_operators})


@pytest.fixture
def store(flows: Flows) -> Iterator[JobStore]:
    with flows.open_store() as store:
        yield store


def test_it_runs_and_ends_any_run_of_its_queue_and_leaves_when_idle(flows: Flows, store: JobStore) -> None:
    first, second = enqueue(flows, numbers()), enqueue(flows, numbers(n=6))
    other = enqueue(flows, numbers(n=8), Order(queue="other"))

    asyncio.run(worker_of(flows, store, "--queue=default", "--idle=0.01", parent=os.getppid()).work())

    assert [store.run(run).status for run in (first, second, other)] == ["succeeded", "succeeded", "queued"]
    assert (store.run(first).supervisor, store.run(first).started_at is None) == ("", False)


def test_it_serves_several_queues(flows: Flows, store: JobStore) -> None:
    runs = [enqueue(flows, numbers(n=n), Order(queue=queue)) for n, queue in ((4, "a"), (6, "b"))]
    asyncio.run(worker_of(flows, store, "--queue=a", "--queue=b", "--idle=0.01", parent=os.getppid()).work())
    assert [store.run(run).status for run in runs] == ["succeeded", "succeeded"]


def test_it_ends_a_run_of_which_everything_was_reused(flows: Flows, store: JobStore) -> None:
    asked = worker_of(flows, store, "--queue=default", "--idle=0.01", parent=os.getppid())
    enqueue(flows, numbers())
    asyncio.run(asked.work())
    again = enqueue(flows, numbers())
    assert store.run(again).status == "queued"
    assert set(store.counts(again)) == {"done"}

    asyncio.run(worker_of(flows, store, "--queue=default", "--idle=0.01", parent=os.getppid(), id="w2").work())

    assert store.run(again).status == "succeeded"


def test_it_tells_how_long_its_cold_start_took(flows: Flows, store: JobStore) -> None:
    asked = worker_of(flows, store, "--queue=default", "--idle=0.01", parent=os.getppid())
    asyncio.run(asked.work())
    (me,) = store.live_workers()
    assert me.phases == "", "nothing was imported, because there was nothing to do"

    enqueue(flows, numbers())
    asyncio.run(asked.work())
    (me,) = store.live_workers()
    assert set(json.loads(me.phases)) == {"import", "plugins"}


def test_it_leaves_after_as_many_jobs_as_it_may_take(flows: Flows, store: JobStore) -> None:
    run = enqueue(flows, numbers())
    asyncio.run(worker_of(flows, store, "--queue=default", "--max-jobs=2", parent=os.getppid()).work())
    assert sum(store.counts(run).values()) == 3
    assert store.counts(run)["done"] == 2
    assert store.run(run).status == "running"


def test_it_leaves_at_once_when_its_parent_is_gone(flows: Flows, store: JobStore) -> None:
    run = enqueue(flows, numbers())
    asyncio.run(worker_of(flows, store, "--queue=default", parent=-1).work())
    assert store.counts(run) == {"ready": 1}


def test_a_worker_of_one_run_leaves_the_others_alone_and_goes_when_its_run_has_ended(
    flows: Flows, store: JobStore
) -> None:
    other = enqueue(flows, numbers(n=6))
    prepared = launch.bind(flows.graph(numbers()), {}, flows.host, flows.project, run_id="r")
    with store.transaction() as tx:
        tx.insert_run(NewRun(id="r", workflow="w", status="running", plan=prepared.encode(), supervisor="somebody"))
    store.finish_run("r", "succeeded")

    asyncio.run(worker_of(flows, store, "--run=r", parent=os.getppid()).work())

    assert store.run(other).status == "queued"


def test_an_install_that_cannot_run_any_job_costs_no_job_its_attempt(tmp_path: Path) -> None:
    ghost = types.ModuleType("no_such_module")
    vars(ghost)["sage_operators"] = drive_operators.sage_operators
    flows = Flows(tmp_path, {"ghost": ghost})
    run = enqueue(flows, numbers())
    with flows.open_store() as store:
        with pytest.raises(SystemExit) as left:
            asyncio.run(worker_of(flows, store, "--queue=default", parent=os.getppid()).work())
        (job,) = store.jobs(run)
    assert left.value.code == worker.BROKEN
    assert (job.state, job.attempt) == ("ready", 0)


def test_it_wakes_for_work_that_comes_while_it_waits(flows: Flows, store: JobStore) -> None:
    async def use() -> None:
        working = asyncio.create_task(worker_of(flows, store, "--queue=default", parent=os.getppid()).work())
        await asyncio.sleep(0)
        run = enqueue(flows, numbers())
        with flows.open_store() as another:
            while another.run(run).status != "succeeded":  # noqa: ASYNC110 - the store has no event
                await asyncio.sleep(0.005)
        working.cancel()
        with pytest.raises(asyncio.CancelledError):
            await working

    asyncio.run(use())


def test_it_says_what_it_must_be_told(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        worker.main(["--project=p"])
    assert left.value.code == 2
    missing = capsys.readouterr().err
    assert all(option in missing for option in ("--data", "--runtime", "--store", "--id", "--parent"))
    with pytest.raises(SystemExit):
        worker.parse(["--project=p", "--data=d", "--runtime=r", "--folder=f", "--store=s", "--id=i", "--parent=1"])
    assert "one of the arguments --run --queue is required" in capsys.readouterr().err


def test_the_url_of_the_store_comes_from_the_environment_and_goes_no_further(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SAGE_WORKER_STORE", "postgresql://me:secret@host/db")
    options = worker.parse(["--project=p", "--data=d", "--runtime=r", "--folder=f", "--id=i", "--parent=1", "--run=x"])
    assert options.store == "postgresql://me:secret@host/db"
    assert "SAGE_WORKER_STORE" not in os.environ
