"""Tests of sage_core.kernel.runtime.desk: runs started, looked at, waited for and cancelled from an event loop."""

from __future__ import annotations

import asyncio
import os
import threading
import time
from collections.abc import Iterator
from contextlib import aclosing
from pathlib import Path

import pytest

from sage_core.common.config import Config, QueueConfig
from sage_core.common.errors import UnknownName, UsageError
from sage_core.common.records import Caller
from sage_core.kernel.runtime import deployments
from sage_core.kernel.runtime.desk import Desk
from sage_core.kernel.runtime.report import Report
from sage_core.kernel.runtime.submit import caller_of
from sage_core.platform.processes import is_alive
from sage_core.testing.flows import Flows
from tests.unit.kernel.runtime import drive_operators

FLOW = {
    "name": "shout",
    "params": {"text": {"type": "string"}, "other": {"type": "string", "default": ""}},
    "steps": {"up": {"use": "d.plain", "in": {"text": "params.text"}}},
    "outputs": {"text": "up.text"},
}
OURS = Caller(tenant="ours", service_class="interactive", priority=2)
THEIRS = Caller(tenant="theirs")


@pytest.fixture
def flows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Flows:
    # What is started finds the store by these, as the command does.
    monkeypatch.setenv("SAGE_HOME", str(tmp_path))
    monkeypatch.setenv("SAGE_PLUGINS", "")
    config = Config(queues={"held": QueueConfig(max=1, idle=0.4)})
    return Flows(tmp_path, {"driven": drive_operators}, config=config)


@pytest.fixture
def desk(flows: Flows) -> Iterator[Desk]:
    desk = Desk(flows.host, flows.project)
    yield desk
    desk.close()
    if flows.project.paths.database.exists():
        with flows.open_store() as store:
            give_up = time.monotonic() + 20
            while any(worker.pid != os.getpid() and is_alive(worker) for worker in store.live_workers()):
                assert time.monotonic() < give_up
                threading.Event().wait(0.02)


def hold(flows: Flows) -> None:
    """Keep what is queued from being run, so that what is seen of it stays as it is."""
    with flows.open_store() as store, store.transaction() as tx:
        tx.switch_queue("held", paused=True)


def test_looking_makes_no_store(desk: Desk, flows: Flows) -> None:
    async def look() -> None:
        assert await desk.deployed() == {}
        assert await desk.runs(5) == []
        assert await desk.queues() == []
        await desk.wake()
        with pytest.raises(UsageError, match="No run has the id 'x'"):
            await desk.run("x")

    asyncio.run(look())
    assert not flows.project.paths.database.exists()


def test_a_run_of_a_deployment_belongs_to_its_caller(desk: Desk, flows: Flows) -> None:
    hold(flows)
    graph = flows.graph(FLOW)
    deployments.deploy(graph, {"other": "x"}, host=flows.host, project=flows.project, name="loud", queue="held")

    async def start() -> None:
        found = await desk.deployed()
        assert (found["loud"].version, found["loud"].given, list(found["loud"].graph.params)) == (
            1,
            ("other",),
            ["text", "other"],
        )
        ours = await desk.invoke("loud", {"text": "a"}, OURS)
        theirs = await desk.invoke("loud", {"text": "b"}, THEIRS)
        run = await desk.run(ours)
        assert (run.deployment, run.queue, caller_of(run)) == ("loud", "held", OURS)
        assert [run.id for run in await desk.runs(5, tenant="ours")] == [ours]
        assert {run.id for run in await desk.runs(5)} == {ours, theirs}
        assert [run.id for run in await desk.runs(1, tenant="theirs", workflow="shout")] == [theirs]
        assert [(queue.name, queue.held) for queue in await desk.queues()] == [("held", 2)]
        assert (await desk.view(run)).status == "queued"
        with pytest.raises(UsageError, match="No run has the id"):
            await desk.run(ours[:-1])
        with pytest.raises(UnknownName, match="Did you mean 'loud'"):
            await desk.invoke("load", {}, OURS)
        with pytest.raises(UsageError, match="no param 'txt'"):
            await desk.invoke("loud", {"txt": "a"}, OURS)

    asyncio.run(start())


def test_a_run_of_tables_is_followed_to_its_end(desk: Desk, flows: Flows) -> None:
    hold(flows)

    async def follow() -> None:
        run_id = await desk.submit(FLOW, {"text": "a"}, OURS, queue="held", run_id="a-run")
        assert run_id == "a-run"

        async def last() -> str | Report:
            async with aclosing(desk.follow(run_id)) as steps:
                return [told async for told in steps][-1]

        waiting = asyncio.create_task(last())
        assert await desk.cancel(run_id)
        assert not await desk.cancel(run_id)
        report = await waiting
        assert isinstance(report, Report)
        assert (report.run_id, report.status) == (run_id, "cancelled")

    asyncio.run(follow())
