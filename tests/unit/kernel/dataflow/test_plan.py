"""Where a graph is cut into stages, and what each stage reads, writes and marks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from sage_core.kernel.dataflow import plan
from sage_core.kernel.dataflow.check import check_tree
from sage_core.kernel.dataflow.graph import Graph
from sage_core.testing.flows import Flows
from tests.unit.kernel.runtime import flow_operators

SOURCE = {"use": "f.items", "with": {"texts": ["a"]}}


@pytest.fixture
def graph(tmp_path: Path) -> Any:
    host = Flows(tmp_path, {"flows": flow_operators}).host

    def build(steps: dict[str, Any], **more: Any) -> Graph:
        return check_tree({"sage": 1, "steps": steps, **more}, host, base=tmp_path)

    return build


def step(use: str, inputs: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"use": use, "in": inputs, **more}


def members(graph: Graph) -> list[tuple[str, ...]]:
    return [stage.steps for stage in plan.cut(graph).values()]


def test_steps_over_the_same_rows_share_a_stage_and_sources_and_collects_have_their_own(graph: Any) -> None:
    made = graph(
        {
            "items": SOURCE,
            "words": step("f.split", {"text": "items.text"}),
            "up": step("f.upper", {"text": "words.word"}),
            "per": step("f.join", {"text": "up.text"}, per="items"),
            "all": step("f.join", {"text": "per.text"}),
        }
    )
    stages = plan.cut(made)
    assert members(made) == [("items",), ("words", "up", "per"), ("all",)]
    assert stages["words"].root == "items"
    assert stages["words"].reads == {"items": ("items.text",)}
    assert stages["words"].writes == ("per.text",)
    assert stages["all"].single


def test_a_checkpoint_and_another_kind_of_resource_cut(graph: Any) -> None:
    made = graph(
        {
            "items": SOURCE,
            "one": step("f.upper", {"text": "items.text"}, checkpoint=True),
            "two": step("f.upper", {"text": "one.text"}, needs={"cpu": 2}),
            "three": step("f.upper", {"text": "two.text"}, needs={"gpu": 1}),
            "four": step("f.upper", {"text": "three.text"}),
        }
    )
    assert members(made) == [("items",), ("one",), ("two",), ("three",), ("four",)]
    # How much of cpu and memory a step needs is no other kind: a job takes the maximum.
    assert members(
        graph(
            {
                "items": SOURCE,
                "one": step("f.upper", {"text": "items.text"}, needs={"cpu": 4}),
                "two": step("f.upper", {"text": "one.text"}),
            }
        )
    ) == [("items",), ("one", "two")]


def test_a_value_of_the_run_is_read_by_a_stage_of_its_own(graph: Any) -> None:
    """So that a changed question does not run again what does not read it."""
    made = graph(
        {
            "items": SOURCE,
            "embed": step("f.embed", {"text": "items.text"}),
            "norm": step("f.norm", {"vector": "embed.vector"}),
            "query": step("f.embed", {"text": "params.q"}),
            "near": step("f.near", {"vector": "embed.vector", "query": "query.vector"}),
        },
        params={"q": {"type": "string"}},
    )
    assert members(made) == [("items",), ("embed", "norm"), ("query",), ("near",)]


def test_a_value_made_of_all_rows_cuts_what_reads_it_from_what_it_was_made_of(graph: Any) -> None:
    made = graph(
        {
            "items": SOURCE,
            "up": step("f.upper", {"text": "items.text"}),
            "book": step("f.book", {"text": "up.text"}),
            "found": step("f.read", {"book": "book", "text": "up.text"}),
        }
    )
    assert members(made) == [("items",), ("up",), ("book",), ("found",)]


def test_what_must_not_outlive_the_run_has_a_stage_of_its_own(graph: Any) -> None:
    made = graph(
        {
            "items": SOURCE,
            "up": step("f.upper", {"text": "items.text"}),
            "clock": step("f.clock", {"text": "up.text"}),
            "off": step("f.upper", {"text": "items.text"}, cache="off"),
            "pure": step("f.split", {"text": "items.text"}),
        }
    )
    stages = plan.cut(made)
    assert members(made) == [("items",), ("up", "pure"), ("clock", "off")]
    assert [stages[name].pure for name in ("items", "up", "clock")] == [True, True, False]


def test_order_without_data_is_a_barrier(graph: Any) -> None:
    stages = plan.cut(
        graph(
            {
                "items": SOURCE,
                "one": step("f.upper", {"text": "items.text"}),
                "two": step("f.upper", {"text": "items.text"}, after="one"),
            }
        )
    )
    assert stages["two"].after == ("one",)
    assert "one" not in stages["two"].reads


def test_the_smallest_partition_of_a_source_and_its_readers_holds(graph: Any) -> None:
    stages = plan.cut(
        graph(
            {
                "items": {**SOURCE, "partition": 16},
                "one": step("f.upper", {"text": "items.text"}, partition=8),
                "two": step("f.upper", {"text": "one.text"}, checkpoint=True),
                "other": SOURCE,
                "three": step("f.upper", {"text": "other.text"}),
            }
        )
    )
    assert [stages[name].limit for name in ("one", "three")] == [8, plan.PARTITION]


def test_a_stage_marks_the_presence_that_others_need(graph: Any) -> None:
    made = graph(
        {
            "items": SOURCE,
            "short": step("f.short", {"text": "items.text"}, checkpoint=True),
            "words": step("f.split", {"text": "items.text"}, rows="short", checkpoint=True),
            "per": step("f.join", {"text": "words.word"}, per="items"),
        }
    )
    stages = plan.cut(made)
    assert stages["items"].marks == ("items",)
    assert stages["short"].marks == ("short",)
    assert stages["words"].marks == ("words", "words>")
    assert plan.expanded_below(made, made.steps["per"]) == "words"
    assert plan.group_grain(made, made.steps["per"]) == "items"


def test_a_join_takes_along_what_is_read_below_it(graph: Any) -> None:
    made = graph(
        {
            "left": SOURCE,
            "words": step("f.split", {"text": "left.text"}),
            "right": SOURCE,
            "pairs": {"use": "join", "in": {"left": "words", "right": "right"}, "on": {"words.word": "right.text"}},
            "show": step("f.pair", {"left": "left.text", "right": "right.group"}, rows="pairs"),
        }
    )
    stages = plan.cut(made)
    assert stages["pairs"].writes == ("left.text", "right.group")
    assert stages["show"].reads == {"pairs": ("left.text", "right.group")}
    assert stages["show"].root == "pairs"
    assert plan.root_of(made, "words") == "left"


def test_outputs_read_the_deepest_of_their_rows(graph: Any) -> None:
    made = graph(
        {
            "items": SOURCE,
            "words": step("f.split", {"text": "items.text"}),
            "long": step("f.upper", {"text": "words.word"}, when="len(words.word) > 1"),
        },
        outputs={"one": "items.text", "all": ["long.text", "items.text"], "whole": "words"},
    )
    outputs = made.outputs
    assert plan.output_grain(made, outputs["one"]) == "items"
    assert plan.output_grain(made, outputs["all"]) == "words"
    assert plan.output_reads(made, outputs["all"]) == (("long.text", "items.text"), ("words", "items"))
    assert plan.output_reads(made, outputs["whole"]) == (("words.word", "words.at"), ())


def test_stages_come_after_what_they_read(graph: Any) -> None:
    made = graph(
        {
            "items": SOURCE,
            "b": step("f.upper", {"text": "items.text"}),
            "n": step("f.count", {"item": "b.text"}),
            "c": step("f.ident", {"id": "n.n"}, after="d"),
            "d": step("f.upper", {"text": "b.text"}, checkpoint=True),
        }
    )
    seen: set[str] = set()
    for name, stage in plan.cut(made).items():
        assert {*stage.reads, *stage.after} - {plan.PARAMS} <= seen
        seen.add(name)
