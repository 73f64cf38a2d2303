"""Tests of sage_core.kernel.runtime.splice: a redrive computes the rows that failed and keeps the others."""

from __future__ import annotations

from typing import Any

import pytest

from sage_core.kernel.runtime.report import Report
from sage_core.testing.flows import Flows
from tests.unit.kernel.runtime.semantics.test_rows import items, lines, step

TEXTS = ("a b", "flaky-c", "d", "flaky-e f", "g")


def flaky(flows: Flows, inputs: dict[str, Any], times: int = 1) -> dict[str, Any]:
    options = {"log": str(flows.home / "log"), "times": times, "kind": "user"}
    return step("f.flaky", inputs, on_error="skip", **{"with": options})


def fresh(flows: Flows, tree: dict[str, Any]) -> Report:
    """What the workflow gives where nothing is known and nothing fails."""
    (flows.home / "log").write_text("\n".join([*TEXTS, "flaky-e"] * 9))
    clean = Flows(flows.home / "clean", {}, config=flows.project.config)
    clean.host = flows.host
    return clean.run(tree)


TREES = {
    "one grain": lambda flows: {
        "up": step("f.upper", {"text": "items.text"}),
        "flaky": flaky(flows, {"text": "items.text"}),
        "both": step("f.pair", {"left": "up.text", "right": "flaky.text"}),
    },
    "below what failed": lambda flows: {
        "flaky": flaky(flows, {"text": "items.text"}),
        "words": step("f.split", {"text": "flaky.text"}),
        "up": step("f.upper", {"text": "words.word"}),
        "pair": step("f.pair", {"left": "up.text", "right": "flaky.text"}),
    },
    "in a child grain": lambda flows: {
        "words": step("f.split", {"text": "items.text"}),
        "flaky": flaky(flows, {"text": "words.word"}),
        "up": step("f.upper", {"text": "flaky.text"}),
        "n": step("f.count", {"item": "flaky.text"}, per="items"),
    },
    "vectors and a checkpoint": lambda flows: {
        "flaky": {**flaky(flows, {"text": "items.text"}), "checkpoint": True},
        "vector": step("f.embed", {"text": "flaky.text"}),
        "all": step("f.join", {"text": "flaky.text"}),
    },
}


@pytest.mark.parametrize("name", TREES)
@pytest.mark.parametrize("partition", [0, 2])
def test_a_redriven_run_is_what_it_had_been_if_nothing_had_failed(flows: Flows, name: str, partition: int) -> None:
    more = {"partition": partition} if partition else {}
    tree = {"steps": {"items": {**items(*TEXTS), **more}, **TREES[name](flows)}}
    first = flows.run(tree)
    assert first.status == "partial"
    assert len(first.failures) == 2
    again = flows.resume(first.run_id, redrive=True)
    assert (again.status, again.failures) == ("succeeded", ())
    wanted = fresh(flows, tree)
    assert again.outputs == wanted.outputs
    for step_name, found in again.steps.items():
        figures = (found.rows_in, found.rows_out, found.absent, found.failed)
        other = wanted.steps[step_name]
        assert figures == (other.rows_in, other.rows_out, other.absent, other.failed), step_name


def test_only_the_rows_that_failed_are_computed_again(flows: Flows) -> None:
    tree = {"steps": {"items": items(*TEXTS), "flaky": flaky(flows, {"text": "items.text"})}}
    first = flows.run(tree)
    assert sorted(lines(flows)) == sorted(TEXTS)
    flows.resume(first.run_id, redrive=True)
    assert sorted(lines(flows)) == sorted([*TEXTS, "flaky-c", "flaky-e f"])
    with flows.open_store() as store:
        tried = {job.stage: len(store.attempts_of(job.id)) for job in store.jobs(first.run_id)}
    assert tried == {"items": 1, "flaky": 2}
    # A later run of the workflow finds the result that is whole.
    later = flows.run(tree)
    assert (later.status, later.outputs) == ("succeeded", {"flaky": list(TEXTS)})


def test_rows_that_fail_again_keep_their_numbers_and_can_be_tried_once_more(flows: Flows) -> None:
    tree = {"steps": {"items": items(*TEXTS), "flaky": flaky(flows, {"text": "items.text"}, times=2)}}
    first = flows.run(tree)
    second = flows.resume(first.run_id, redrive=True)
    assert (second.status, second.failures) == ("partial", first.failures)
    assert [failure.row for failure in second.failures] == ["1", "3"]
    third = flows.resume(first.run_id, redrive=True)
    assert (third.status, third.outputs) == ("succeeded", {"flaky": list(TEXTS)})
    assert len(lines(flows)) == len(TEXTS) + 2 + 2


def test_a_resume_alone_leaves_partial_results_as_they_are(flows: Flows) -> None:
    tree = {"steps": {"items": items(*TEXTS), "flaky": flaky(flows, {"text": "items.text"})}}
    first = flows.run(tree)
    assert flows.resume(first.run_id).status == "partial"
    assert sorted(lines(flows)) == sorted(TEXTS)
