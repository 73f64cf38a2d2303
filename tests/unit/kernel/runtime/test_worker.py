"""Tests of sage_core.kernel.runtime.worker: when it works, waits and leaves."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import msgspec
import pytest

from sage_core.kernel.runtime import launch, worker
from sage_core.kernel.runtime.executor import Executor
from sage_core.platform.records import NewRun, StoredRun
from sage_core.platform.store import JobStore
from sage_core.testing.flows import Flows
from tests.unit.kernel.runtime import drive_operators


@pytest.fixture
def flows(tmp_path: Path) -> Flows:
    return Flows(tmp_path, {"driven": drive_operators})


def submitted(flows: Flows, store: JobStore) -> Executor:
    """An executor of a run with three jobs, none of which has run."""
    tree = {
        "name": "w",
        "steps": {
            "numbers": {"use": "d.numbers", "with": {"n": 4}},
            "act": {"use": "d.plain", "in": {"text": "numbers.text"}, "partition": 2},
        },
    }
    prepared = launch.bind(flows.graph(tree), {}, flows.host, flows.project, run_id="r")
    run = NewRun(id="r", workflow="w", status="running", plan=prepared.encode())
    executor = Executor(
        store,
        StoredRun(**msgspec.structs.asdict(run)),
        prepared,
        worker="w1",
        host=flows.host,
        paths=flows.project.paths,
        config=flows.project.config,
        inline=False,
        warn=lambda message: None,
    )
    with store.transaction() as tx:
        executor.manager.submit(tx, run)
    return executor


def test_it_runs_what_is_ready_and_leaves_when_the_run_ends(flows: Flows) -> None:
    async def use() -> None:
        with flows.open_store() as store:
            executor = submitted(flows, store)
            async with executor, asyncio.TaskGroup() as tasks:
                tasks.create_task(worker.work(executor, store, "r", parent=os.getppid()))
                tasks.create_task(end(store))

    async def end(store: JobStore) -> None:
        while set(store.counts("r")) != {"done"}:  # noqa: ASYNC110 - the store has no event
            await asyncio.sleep(0)
        assert store.counts("r")["done"] >= 3
        with flows.open_store() as another:
            another.finish_run("r", "succeeded")

    asyncio.run(use())


def test_it_leaves_at_once_when_its_parent_is_gone(flows: Flows) -> None:
    async def use() -> None:
        with flows.open_store() as store:
            executor = submitted(flows, store)
            async with executor:
                await worker.work(executor, store, "r", parent=-1)
            assert store.counts("r") == {"ready": 1}

    asyncio.run(use())


def test_it_says_what_it_must_be_told(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        worker.main(["--project=p"])
    assert left.value.code == 2
    missing = capsys.readouterr().err
    assert all(option in missing for option in ("--data", "--runtime", "--store", "--run", "--id", "--parent"))
