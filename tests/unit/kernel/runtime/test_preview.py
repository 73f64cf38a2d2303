"""Tests of sage_core.kernel.runtime.preview: what a run would do, and that it then does it."""

from __future__ import annotations

from typing import Any

from sage_core.testing.flows import Flows


def tree(*texts: str, use: str = "f.items") -> dict[str, Any]:
    return {
        "steps": {
            "items": {"use": use, "with": {"texts": list(texts)}},
            "upper": {"use": "f.upper", "in": {"text": "items.text"}, "partition": 2},
            "join": {"use": "f.join", "in": {"text": "upper.text"}},
        }
    }


def verbs(flows: Flows, workflow: dict[str, Any], *, probe: bool = False) -> dict[str, str]:
    return {name: step.verb for name, step in flows.plan(workflow, probe=probe).items()}


def test_before_a_run_only_the_first_step_is_known(flows: Flows) -> None:
    found = flows.plan(tree("a", "b"))
    assert {name: step.verb for name, step in found.items()} == {
        "items": "run",
        "upper": "deferred",
        "join": "deferred",
    }
    assert found["items"].reason == "no earlier result has its code, options and inputs"
    assert found["upper"].reason == "known once items ran"


def test_after_a_run_everything_is_reused_and_a_run_agrees(flows: Flows) -> None:
    flows.run(tree("a", "b"))
    assert set(verbs(flows, tree("a", "b")).values()) == {"reuse"}
    assert {step.partitions.run for step in flows.run(tree("a", "b")).steps.values()} == {0}


def test_a_step_that_reads_the_world_always_runs_and_is_probed(flows: Flows) -> None:
    workflow = tree("a", "b", use="f.world")
    assert verbs(flows, workflow) == {"items": "always", "upper": "deferred", "join": "deferred"}
    assert verbs(flows, workflow, probe=True) == {"items": "always", "upper": "run", "join": "deferred"}
    flows.run(workflow)
    assert verbs(flows, workflow, probe=True) == {"items": "always", "upper": "reuse", "join": "reuse"}


def test_partitions_that_are_there_already_are_counted(flows: Flows) -> None:
    texts = [f"text {number}" for number in range(40)]
    flows.run(tree(*texts, use="f.world"))
    changed = tree(*texts, "one more", use="f.world")

    upper = flows.plan(changed, probe=True)["upper"]
    assert upper.verb == "run"
    assert 0 < upper.reused < upper.jobs
    assert upper.reason == f"reuse {upper.reused} of {upper.jobs} partitions"
    ran = flows.run(changed).steps["upper"].partitions
    assert (ran.total, ran.reused) == (upper.jobs, upper.reused)
