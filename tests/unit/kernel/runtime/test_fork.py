"""Tests of sage_core.kernel.runtime.fork: another run over the same graph, anew from a step on."""

from __future__ import annotations

from typing import Any

import pytest

from sage_core.common.errors import UnknownName
from sage_core.kernel.runtime.drive import Settings
from sage_core.kernel.runtime.fork import below, fork
from sage_core.kernel.runtime.report import Report
from sage_core.testing.flows import Flows
from tests.unit.kernel.runtime.semantics.test_rows import items, lines, step


def tree(flows: Flows) -> dict[str, Any]:
    log = {"log": str(flows.home / "log")}
    return {
        "params": {"mark": {"type": "string"}, "where": {"type": "path", "default": "."}},
        "steps": {
            "items": items("a", "b"),
            "up": step("f.upper", {"text": "items.text"}, checkpoint=True, **{"with": log}),
            "all": step("f.join", {"text": "up.text"}, **{"with": log}),
            "other": step("f.pair", {"left": "params.mark", "right": "all.text"}),
            "aside": step("f.upper", {"text": "params.mark"}, **{"with": log}),
        },
        "outputs": {"pair": "other.left", "all": "all.text"},
    }


def forked(flows: Flows, run_id: str, step: str, **given: str) -> Report:
    with flows.open_store() as store:
        run = store.run(run_id)
    return fork(
        run,
        step,
        given,
        host=flows.host,
        project=flows.project,
        settings=Settings(workers=0),
        watch=lambda progress: None,
    )


def test_what_comes_before_is_reused_and_what_follows_is_computed_anew(flows: Flows) -> None:
    first = flows.run(tree(flows), {"mark": "x"})
    before = lines(flows)
    again = forked(flows, first.run_id, "all")
    assert (again.status, again.outputs) == ("succeeded", first.outputs)
    assert lines(flows)[len(before) :] == ["A,B"]
    reused = {name: found.partitions.reused == found.partitions.total for name, found in again.steps.items()}
    assert reused == {"items": True, "up": True, "all": False, "other": False, "aside": True}
    with flows.open_store() as store:
        run = store.run(again.run_id)
    assert (run.forked_from, run.session) == (first.run_id, 1)
    # Another fork finds nothing of this one's.
    forked(flows, first.run_id, "all")
    assert lines(flows)[len(before) :] == ["A,B", "A,B"]


def test_a_fork_may_change_parameters(flows: Flows) -> None:
    first = flows.run(tree(flows), {"mark": "x"})
    again = forked(flows, first.run_id, "other", mark="y")
    assert again.outputs == {"pair": "y", "all": "A,B"}
    assert again.steps["all"].partitions.reused == 1


def test_the_step_is_one_of_the_run(flows: Flows) -> None:
    first = flows.run(tree(flows), {"mark": "x"})
    with pytest.raises(UnknownName, match="No step is named 'al'"):
        forked(flows, first.run_id, "al")


def test_what_follows_from_a_step_is_what_reads_it_stands_below_it_or_comes_after_it(flows: Flows) -> None:
    graph = flows.graph(
        {
            "steps": {
                "items": items("a b"),
                "words": step("f.split", {"text": "items.text"}),
                "up": step("f.upper", {"text": "items.text"}),
                "low": step("f.upper", {"text": "words.word"}),
                "late": step("f.upper", {"text": "items.text"}, after="up"),
            }
        }
    )
    assert below(graph, "words") == ["words", "low"]
    assert below(graph, "up") == ["up", "late"]
    assert below(graph, "items") == list(graph.steps)
