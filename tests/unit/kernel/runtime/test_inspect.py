"""Tests of sage_core.kernel.runtime.inspect: a run as the store tells of it."""

from __future__ import annotations

from typing import Any

from sage_core.kernel.runtime.inspect import RunView, inspect_run, iso
from sage_core.testing.flows import Flows


def view(flows: Flows, run_id: str) -> RunView:
    with flows.open_store() as store:
        return inspect_run(store, store.run(run_id), flows.project.paths)


def tree(on_error: str) -> dict[str, Any]:
    return {
        "name": "w",
        "steps": {
            "items": {"use": "f.items", "with": {"texts": ["a", "bad", "c"]}},
            "frail": {"use": "f.fragile", "in": {"text": "items.text"}, "on_error": on_error},
        },
        "outputs": {"all": "frail"},
    }


def test_it_shows_what_the_report_said(flows: Flows) -> None:
    report = flows.run(tree("skip"))
    shown = view(flows, report.run_id)
    assert (shown.run_id, shown.workflow, shown.status) == (report.run_id, "w", "partial")
    assert (shown.outputs, shown.failures, shown.error) == (report.outputs, report.failures, "")
    assert (shown.jobs, shown.session) == ({"done": 2}, 1)
    assert shown.steps == report.steps


def test_a_failed_run_shows_its_error_and_what_is_left(flows: Flows) -> None:
    report = flows.run(tree("fail"))
    shown = view(flows, report.run_id)
    assert (shown.status, shown.error, shown.outputs) == ("failed", report.error, {})
    assert shown.jobs == {"done": 1, "failed": 1}


def test_times_are_iso_8601_in_utc() -> None:
    assert iso(0) == "1970-01-01T00:00:00.000Z"
    assert iso(1_700_000_000_042) == "2023-11-14T22:13:20.042Z"
