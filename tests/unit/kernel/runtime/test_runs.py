"""Tests of sage_core.kernel.runtime.runs: what belongs to a run and what to the worker that is at it."""

from __future__ import annotations

import asyncio
import importlib
import shutil
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from sage_core.common.records import Job
from sage_core.kernel.runtime.runs import KEPT, Runs
from sage_core.kernel.runtime.submit import Place
from sage_core.platform.store import JobStore
from sage_core.testing.flows import Flows
from tests.unit.kernel.runtime import drive_operators
from tests.unit.kernel.runtime.queued import enqueue, numbers


@pytest.fixture
def flows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Flows:
    monkeypatch.chdir(tmp_path)
    return Flows(tmp_path, {"driven": drive_operators})


@pytest.fixture
def store(flows: Flows) -> Iterator[JobStore]:
    with flows.open_store() as store:
        yield store


def runs_of(flows: Flows, store: JobStore) -> Runs:
    modules = dict(flows.host.modules())
    defaults = modules.pop("builtins")
    return Runs(
        store,
        store_url=flows.project.url,
        worker="w1",
        modules={name: importlib.import_module(module) for name, module in modules.items()},
        defaults=importlib.import_module(defaults),
        paths=flows.project.paths,
        folder=flows.home,
        node="here",
    )


def claim(store: JobStore) -> Job:
    (job,) = store.claim("w1", lease_ms=60_000)
    return job


def test_a_run_works_in_the_folder_it_was_started_in(
    flows: Flows, store: JobStore, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    there = tmp_path / "there"
    there.mkdir()
    monkeypatch.chdir(there)
    enqueue(flows, numbers())
    monkeypatch.chdir(tmp_path)

    async def use() -> None:
        runs = runs_of(flows, store)
        await runs.attempt(claim(store))
        assert Path.cwd() == there
        await runs.close()

    asyncio.run(use())


def test_a_folder_that_is_missing_fails_the_run_and_not_the_worker(
    flows: Flows, store: JobStore, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    lost = enqueue(flows, numbers())
    monkeypatch.chdir(tmp_path)
    shutil.rmtree(gone)
    fine = enqueue(flows, numbers(n=6))

    async def use() -> None:
        runs = runs_of(flows, store)
        while store.counts(fine).get("ready"):
            await runs.attempt(claim(store))
        await runs.close()

    asyncio.run(use())

    run = store.run(lost)
    assert run.status == "failed"
    assert run.error.startswith(f"run {lost} was started in {gone}, which is not there on ")
    assert run.error.endswith(f"help: put the folder there, then: sage runs resume {lost}")
    assert store.counts(lost) == {"failed": 1}
    assert store.run(fine).status == "succeeded"


def test_the_configuration_is_that_of_the_runs_project(flows: Flows, store: JobStore, tmp_path: Path) -> None:
    run_id = enqueue(flows, numbers())
    place = msgspec.msgpack.decode(store.run(run_id).options, type=Place)
    (Path(place.project) / "sage.toml").write_text("[workers]\nleese = 3\n")

    async def use() -> None:
        runs = runs_of(flows, store)
        await runs.attempt(claim(store))
        await runs.close()

    asyncio.run(use())
    assert store.run(run_id).status == "failed"
    assert "unknown key 'leese'" in store.run(run_id).error


def test_runs_beyond_a_few_are_closed_and_opened_again(flows: Flows, store: JobStore) -> None:
    ids = [enqueue(flows, numbers(n=n)) for n in range(2, 4 + KEPT)]

    async def use() -> None:
        runs = runs_of(flows, store)
        while jobs := store.claim("w1", lease_ms=60_000):
            await runs.attempt(jobs[0])
        await runs.close()

    asyncio.run(use())
    assert {store.run(run_id).status for run_id in ids} == {"succeeded"}


def test_the_same_result_is_reused_where_another_run_has_it_by_now(flows: Flows, store: JobStore) -> None:
    first, second = enqueue(flows, numbers()), enqueue(flows, numbers())

    async def use() -> None:
        runs = runs_of(flows, store)
        while jobs := store.claim("w1", lease_ms=60_000):
            await runs.attempt(jobs[0])
        await runs.close()

    asyncio.run(use())
    assert [store.run(run).status for run in (first, second)] == ["succeeded", "succeeded"]
    assert not any(job.reused for job in store.jobs(first))
    assert all(job.reused for job in store.jobs(second))


def test_a_job_whose_result_another_run_computes_is_put_off(flows: Flows, store: JobStore) -> None:
    workflow = numbers("d.hang", n=1, flag=str(flows.home / "flag"))
    first, second = enqueue(flows, workflow), enqueue(flows, workflow)

    async def use() -> None:
        runs, others = runs_of(flows, store), runs_of(flows, store)
        for _ in range(2):
            await runs.attempt(claim(store))
        assert store.counts(second) == {"done": 1, "ready": 1}
        at_work = asyncio.create_task(runs.attempt(claim(store)))
        while not (flows.home / "flag").exists():  # noqa: ASYNC110 - the operator's sign of life
            await asyncio.sleep(0)
        await others.attempt(claim(store))
        at_work.cancel()
        with pytest.raises(asyncio.CancelledError):
            await at_work
        await runs.close()
        await others.close()

    asyncio.run(use())
    job = store.jobs(second)[1]
    assert (job.state, job.attempt) == ("ready", 0), "it was put off, and that is no attempt"
    assert job.run_at > (job.claimed_at or 0)
    assert [attempt.job_id for attempt in store.attempts(second)] == [store.jobs(second)[0].id]
    assert {attempt.outcome for attempt in store.attempts(first)} == {"done", "given_back"}
