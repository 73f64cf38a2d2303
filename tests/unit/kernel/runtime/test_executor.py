"""Tests of sage_core.kernel.runtime.executor: one process's attempts at jobs."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from pathlib import Path

import msgspec
import pytest

import sage_core.testing.engines as fake
from sage_core import Context, hookimpl, operator
from sage_core.common.records import ModelSpec
from sage_core.kernel.runtime import launch
from sage_core.kernel.runtime.executor import Executor
from sage_core.platform.records import NewRun, StoredRun
from sage_core.platform.store import JobStore
from sage_core.testing.flows import Flows


@operator("e.fail", returns="text")
def fail(text: str) -> str:
    raise ValueError(f"no {text}")


@operator("e.late", returns="text")
def late(text: str) -> str:
    raise ConnectionError(f"no {text}")


@operator("e.say", returns="text", pure=False)
async def say(text: str, *, model: str, ctx: Context) -> str:
    return "".join([token.text async for token in ctx.client.generate(model, [{"role": "user", "content": text}])])


@operator("e.take", returns="text")
def take(text: str, *, url: str) -> str:
    """Loses its own job, as when its lease ran out."""
    with JobStore.open(url) as store:
        store.cancel_run("r")
    return text


@operator("e.wait", returns="text")
async def wait(text: str) -> str:
    await asyncio.Event().wait()
    return text


class Operators:
    @hookimpl
    def sage_operators(self) -> Mapping[str, str]:
        return {f"e.{name}": f"{__name__}:{name}" for name in ("fail", "late", "say", "take", "wait")}


@pytest.fixture
def flows(tmp_path: Path) -> Flows:
    return Flows(tmp_path, {"operators": Operators(), "fake": fake})


def executor_of(flows: Flows, store: JobStore, use: str, **options: str) -> Executor:
    tree = {
        "name": "w",
        "models": {"m": {"backend": "fake"}},
        "steps": {"act": {"use": use, "in": {"text": {"value": "two words"}}, "with": options}},
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
        inline=True,
        warn=lambda message: None,
    )
    with store.transaction() as tx:
        executor.manager.submit(tx, run)
    return executor


def test_one_runs_a_job_and_says_when_none_is_left(flows: Flows) -> None:
    async def use(store: JobStore) -> None:
        async with executor_of(flows, store, "e.say", model="m") as executor:
            assert executor.generated == 0
            assert await executor.one()
            assert executor.generated == 2
            assert not await executor.one()
            assert not executor.failed
        assert store.counts("r") == {"done": 1}

    with flows.open_store() as store:
        asyncio.run(use(store))


def test_a_failed_job_is_told_to_the_store_and_remembered(flows: Flows) -> None:
    async def use(store: JobStore) -> None:
        async with executor_of(flows, store, "e.fail") as executor:
            assert await executor.one()
            assert executor.failed
        (job,) = store.jobs("r")
        assert job.state == "failed"
        assert job.error.startswith("step 'act': ValueError: no two words")

    with flows.open_store() as store:
        asyncio.run(use(store))


def test_a_job_that_failed_for_what_may_pass_is_tried_again_later_and_no_oftener_than_it_may(flows: Flows) -> None:
    async def use(store: JobStore) -> None:
        async with executor_of(flows, store, "e.late") as executor:
            assert await executor.one()
            assert not executor.failed
            (job,) = store.jobs("r")
            assert (job.state, job.attempt, job.max_attempts) == ("ready", 1, 3)
            assert 400 < job.run_at - store.now() <= 1000
            assert job.error.startswith("step 'act': ConnectionError: no two words")
            # Nobody else claims it before.
            assert not await executor.one()

    with flows.open_store() as store:
        asyncio.run(use(store))


def test_the_result_of_a_job_that_was_lost_meanwhile_is_dropped(flows: Flows) -> None:
    async def use(store: JobStore) -> None:
        async with executor_of(flows, store, "e.take", url=flows.project.url) as executor:
            assert await executor.one()
            assert not executor.failed
        (job,) = store.jobs("r")
        assert (job.state, job.result_key) == ("cancelled", None)

    with flows.open_store() as store:
        asyncio.run(use(store))


def test_a_cancelled_attempt_gives_its_job_back_with_its_attempt(flows: Flows) -> None:
    async def use(store: JobStore) -> None:
        async with executor_of(flows, store, "e.wait") as executor:
            task = asyncio.create_task(executor.one())
            while not store.counts("r").get("running"):  # noqa: ASYNC110 - the store has no event
                await asyncio.sleep(0)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
        (job,) = store.jobs("r")
        assert (job.state, job.attempt) == ("ready", 0)

    with flows.open_store() as store:
        asyncio.run(use(store))


def test_models_of_the_run_are_those_of_its_plan(flows: Flows) -> None:
    with flows.open_store() as store:
        executor = executor_of(flows, store, "e.say", model="m")
    assert executor.inputs.prepared.models == {"m": ModelSpec(name="m", backend="fake")}
