from __future__ import annotations

from pathlib import Path

import numpy

from sage_core.common.operators import Artifact
from sage_core.kernel.runtime.inspect import inspect_run, iso
from sage_core.kernel.runtime.report import shown
from sage_core.testing.flows import Flows


def test_values_are_shown_as_json_can_hold_them(tmp_path: Path) -> None:
    value = {"v": numpy.ones((1, 2), dtype=numpy.float32), "a": (Artifact(tmp_path, "d"), None), 1: "x"}
    assert shown(value) == {
        "v": [[1.0, 1.0]],
        "a": [{"artifact": "Artifact", "digest": "d", "path": str(tmp_path)}, None],
        "1": "x",
    }


def test_what_the_store_says_of_a_run_is_what_its_driver_reported(flows: Flows) -> None:
    texts = ["bad" if number == 7 else f"t{number}" for number in range(12)]
    report = flows.run(
        {
            "steps": {
                "items": {"use": "f.items", "with": {"texts": texts}, "partition": 2},
                "frail": {"use": "f.fragile", "in": {"text": "items.text"}, "on_error": "skip"},
            }
        }
    )
    with flows.open_store() as store:
        view = inspect_run(store, store.run(report.run_id), flows.project.paths)
    assert (view.run_id, view.status, view.session) == (report.run_id, "partial", 1)
    assert view.steps == report.steps
    assert view.outputs == report.outputs
    assert view.failures == report.failures
    assert view.jobs == {"done": report.steps["frail"].partitions.total + 1}
    assert view.error == ""


def test_times_are_shown_in_utc_to_the_millisecond() -> None:
    assert iso(1_700_000_000_042) == "2023-11-14T22:13:20.042Z"


def test_an_output_may_merge_a_step_below_a_join_with_a_column_from_above_it(flows: Flows) -> None:
    report = flows.run(
        {
            "steps": {
                "orders": {"use": "f.items", "with": {"texts": ["a", "b"]}},
                "people": {"use": "f.items", "with": {"texts": ["b", "a"]}},
                "pairs": {
                    "use": "join",
                    "in": {"left": "orders", "right": "people"},
                    "on": {"orders.text": "people.text"},
                },
                "up": {"use": "f.upper", "in": {"text": "people.text"}, "rows": "pairs", "when": "people.text == 'a'"},
            },
            "outputs": {"merged": ["up.text", "orders.text"]},
        }
    )
    assert report.outputs == {"merged": ["A", "b"]}
