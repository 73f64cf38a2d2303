"""A run's end-to-end aim, and what of it is left to the calls of each step."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import sage_core.testing.engines as fake
from sage_core.common.clock import SECOND
from sage_core.kernel.runtime.critical_path import earlier_seconds, run_deadline, seconds_after
from sage_core.platform.records import StoredRun
from sage_core.platform.store import JobStore
from sage_core.testing.flows import Flows
from tests.unit.kernel.runtime import slo_operators

FLOW: dict[str, Any] = {
    "name": "asked",
    "params": {"question": {"type": "string"}},
    "models": {"m": {"backend": "fake"}},
    "steps": {
        "first": {"use": "s.ask", "in": {"text": "params.question"}},
        "aside": {"use": "s.ask", "in": {"text": "params.question"}},
        "second": {"use": "s.ask", "in": {"text": "first"}, "with": {"pause": 0.05}},
        "third": {"use": "s.ask", "in": {"text": "second"}, "after": ["aside"]},
    },
    "outputs": {"answer": "third", "aside": "aside"},
}
AIM = 1_000


@pytest.fixture
def asked(tmp_path: Path) -> Flows:
    return Flows(tmp_path, {"asked": slo_operators, "fake": fake})


@pytest.fixture
def store(asked: Flows) -> Iterator[JobStore]:
    with asked.open_store() as store:
        yield store


def decided(flows: Flows, run: str) -> dict[str, dict[str, Any]]:
    log = flows.project.paths.logs / "decisions.jsonl"
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    return {line["step"]: line for line in lines if line["run"] == run}


def test_what_comes_after_a_step_is_its_longest_path(asked: Flows) -> None:
    graph = asked.graph(FLOW)

    after = seconds_after(graph, {"first": 8.0, "aside": 4.0, "second": 2.0, "third": 1.0})

    assert after == {"first": 3.0, "aside": 1.0, "second": 1.0, "third": 0.0}
    assert seconds_after(graph, {}) == dict.fromkeys(FLOW["steps"], 0.0)


def test_a_run_is_due_its_aim_after_it_was_made_and_a_resumed_one_has_as_long_again() -> None:
    made = time.time_ns() // 1_000_000 - 600_000
    run = StoredRun(id="r", workflow="w", created_at=made)
    resumed = StoredRun(id="r", workflow="w", created_at=made, session=2)

    assert run_deadline(run, None) is None
    due, late = run_deadline(run, 900.0), run_deadline(run, 60.0)
    assert due is not None
    assert late is not None
    assert due <= time.monotonic_ns() + 301 * SECOND
    assert late < time.monotonic_ns() < due
    again = run_deadline(resumed, 60.0)
    assert again is not None
    assert again > time.monotonic_ns()


def test_a_runs_aim_is_the_deadline_of_its_calls_less_what_comes_after_them(asked: Flows, store: JobStore) -> None:
    flow = {**FLOW, "slo": {"end_to_end": f"{AIM}s"}}
    first = asked.run(flow, {"question": "why"})
    assert first.outputs["answer"] == "why"
    lines = decided(asked, first.run_id)
    assert set(lines) == set(FLOW["steps"])
    assert all(0 < line["deadline"] <= AIM * SECOND for line in lines.values())
    assert lines["third"]["deadline"] < lines["first"]["deadline"]

    seconds = earlier_seconds(store, StoredRun(id="x", workflow="asked"))
    assert set(seconds) == set(FLOW["steps"])
    assert seconds["second"] >= 0.05

    second = asked.run(flow, {"question": "why"})
    lines = decided(asked, second.run_id)
    assert lines["first"]["deadline"] <= (AIM - seconds["second"] - seconds["third"]) * SECOND
    assert {line["service_class"] for line in lines.values()} == {"standard"}


def test_a_late_run_has_a_millisecond_left_and_one_without_an_aim_all_the_time(asked: Flows) -> None:
    late = asked.run({**FLOW, "slo": {"end_to_end": "1ms"}}, {"question": "why"})
    assert {line["deadline"] for line in decided(asked, late.run_id).values()} == {1_000_000}
    free = asked.run(FLOW, {"question": "why"})
    assert {line["deadline"] for line in decided(asked, free.run_id).values()} == {None}


def test_a_workflow_that_has_not_run_says_nothing_of_its_steps(store: JobStore) -> None:
    assert earlier_seconds(store, StoredRun(id="x", workflow="asked")) == {}
