"""Tests of sage_core.kernel.runtime.finish: who ends a run without a driver, and how."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import msgspec
import pytest

from sage_core.kernel.runtime import finish
from sage_core.kernel.runtime.inputs import Inputs
from sage_core.kernel.runtime.prepared import decode_prepared
from sage_core.kernel.runtime.results import Tables
from sage_core.kernel.runtime.supervisor import Supervisor
from sage_core.kernel.runtime.values import Codec
from sage_core.kernel.scheduler.node import this_node
from sage_core.platform.artifacts import ArtifactStore
from sage_core.platform.store import JobStore
from sage_core.testing.flows import Flows
from tests.unit.kernel.runtime import drive_operators
from tests.unit.kernel.runtime.drive_operators import Ends
from tests.unit.kernel.runtime.queued import enqueue, numbers, worker_of


@pytest.fixture
def ends() -> Ends:
    return Ends()


@pytest.fixture
def flows(tmp_path: Path, ends: Ends, monkeypatch: pytest.MonkeyPatch) -> Flows:
    monkeypatch.chdir(tmp_path)
    return Flows(tmp_path, {"driven": drive_operators, "ends": ends})


def done(flows: Flows, store: JobStore) -> str:
    """A queued run whose jobs are all done, because an equal one was run before; nobody has ended it."""
    flows.run(numbers())
    return enqueue(flows, numbers())


def inputs_of(flows: Flows, store: JobStore, run_id: str) -> Inputs:
    codec = Codec(flows.project.paths.artifacts)
    tables = Tables(codec, ArtifactStore(flows.project.paths.artifacts))
    return Inputs(run_id, decode_prepared(store.run(run_id).plan), tables, codec)


def test_of_two_who_try_one_ends_the_run_and_tells_the_plugins(flows: Flows, ends: Ends) -> None:
    with flows.open_store() as store, flows.open_store() as other:
        run_id = done(flows, store)
        run = store.run(run_id)
        inputs = inputs_of(flows, store, run_id)
        ends.runs.clear()

        # Both have looked before either writes.
        found = finish.conclude(store, inputs, run)
        assert finish.finish(other, inputs, run, flows.host)
        assert not finish.end(store, run, found.status, found.outputs, found.error)
        assert not finish.finish(store, inputs, run, flows.host)

        stored = store.run(run_id)
    assert [(end.id, end.status) for end in ends.runs] == [(run_id, "succeeded")]
    assert msgspec.msgpack.decode(stored.outputs or b"") == {"all": ["0", "1", "2", "3"]}


def test_a_run_with_jobs_left_or_with_a_driver_is_left_alone(flows: Flows) -> None:
    with flows.open_store() as store:
        unfinished = enqueue(flows, numbers())
        run = store.run(unfinished)
        assert not finish.finish(store, inputs_of(flows, store, unfinished), run, flows.host)
        store.cancel_run(unfinished)
        driven = done(flows, store)
        with store.transaction() as tx:
            tx.drive_run(driven, "somebody", session=1)
        assert not finish.finish(store, inputs_of(flows, store, driven), store.run(driven), flows.host)
        assert store.run(driven).status == "running"


def test_a_run_whose_results_are_gone_fails_and_says_so(flows: Flows, ends: Ends) -> None:
    with flows.open_store() as store:
        run_id = done(flows, store)
        with store.transaction() as tx:
            tx.forget_results([job.result_key for job in store.jobs(run_id) if job.result_key])
        assert finish.finish(store, inputs_of(flows, store, run_id), store.run(run_id), flows.host)
        stored = store.run(run_id)
    assert stored.status == "failed"
    assert "gone" in stored.error
    assert ends.runs[-1].status == "failed"


def test_a_failed_job_fails_its_run_and_cancels_what_is_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    flows = Flows(tmp_path, {"driven": drive_operators})
    run_id = enqueue(flows, numbers("d.fail", partition=1))
    with flows.open_store() as store:
        asyncio.run(worker_of(flows, store, "--queue=default", "--idle=0.01", parent=os.getppid()).work())
        stored, counts = store.run(run_id), store.counts(run_id)
    assert stored.status == "failed"
    assert "ValueError: no " in stored.error
    assert counts == {"done": 1, "failed": 1, "cancelled": 3}


def test_an_end_of_which_nobody_told_is_told_later_and_once(flows: Flows, ends: Ends) -> None:
    with flows.open_store() as store:
        told = done(flows, store)
        ends.runs.clear()
        # Its process dies before the plugins hear of it.
        assert store.finish_run(told, "succeeded")
        finish.announce_left(store, flows.host)
        assert ends.runs == [], "whoever ended it has a minute"
        finish.announce_left(store, flows.host, for_ms=0)
        finish.announce_left(store, flows.host, for_ms=0)
        finish.announce(store, flows.host, told)
        assert [(end.id, end.status, end.session) for end in ends.runs] == [(told, "succeeded", 1)]
        # Another session ends once more.
        assert store.resume_run(told) == 2
        finish.announce(store, flows.host, told)
        assert len(ends.runs) == 1
        store.cancel_run(told)
        finish.announce_left(store, flows.host, for_ms=0)
    assert [(end.status, end.session) for end in ends.runs[1:]] == [("cancelled", 2)]


def test_a_supervisor_tells_what_others_left_untold(flows: Flows, ends: Ends) -> None:
    with flows.open_store() as store:
        untold = done(flows, store)
        ends.runs.clear()
        store.finish_run(untold, "succeeded")
        with store.transaction():
            store._db.run("UPDATE run SET finished_at = finished_at - 61000")
        node = this_node(flows.project.config)
        Supervisor(flows.project, flows.host, node, ["default"], until_idle=0.05).run()
    assert [end.id for end in ends.runs] == [untold]
