"""Tests of sage_core.kernel.runtime.follow: a run that others drive is waited for and told of as its driver would."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from sage_core.kernel.runtime import launch
from sage_core.kernel.runtime.drive import Settings
from sage_core.kernel.runtime.follow import follow
from sage_core.kernel.runtime.progress import Event, Progress
from sage_core.kernel.runtime.report import Report
from sage_core.kernel.runtime.submit import Order
from sage_core.testing.flows import Flows
from tests.unit.kernel.runtime.schedule_operators import PLUGINS, WORKFLOW


@pytest.fixture
def flows(tmp_path: Path, sage_home: Path) -> Flows:
    return Flows(tmp_path, PLUGINS)


def watched(flows: Flows, run_id: str, events: list[Event]) -> Report:
    with flows.open_store() as store:
        return follow(store, run_id, paths=flows.project.paths, watch=events.append)


def queued(flows: Flows) -> str:
    graph, run_id = flows.graph(WORKFLOW), launch.new_run_id()
    prepared = launch.bind(graph, {}, flows.host, flows.project, run_id=run_id)
    return launch.enqueue(graph, prepared, run_id, host=flows.host, project=flows.project, order=Order())


def test_a_run_that_is_over_is_told_as_its_driver_told_it(flows: Flows) -> None:
    told = flows.run(WORKFLOW)
    assert watched(flows, told.run_id, []) == told
    assert told.outputs


def test_it_waits_for_the_end_and_tells_how_far_the_run_is(flows: Flows) -> None:
    run_id, events = queued(flows), list[Event]()
    follower = threading.Thread(target=watched, args=(flows, run_id, events))
    follower.start()
    with flows.open_store() as store:
        store.resume_run(run_id)
    report = launch.resume(
        run_id, host=flows.host, project=flows.project, settings=Settings(workers=0), watch=lambda event: None
    )
    follower.join(timeout=30)
    assert not follower.is_alive()
    assert report.status == "succeeded"
    assert all(isinstance(event, Progress) for event in events)
    assert watched(flows, run_id, []).outputs == report.outputs


def test_a_cancelled_run_is_told_as_cancelled(flows: Flows) -> None:
    run_id = queued(flows)
    with flows.open_store() as store:
        store.cancel_run(run_id)
    report = watched(flows, run_id, [])
    assert (report.status, report.error, report.outputs) == ("cancelled", "cancelled", {})
