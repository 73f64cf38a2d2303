"""Grains, repetition of ancestors, presence, filters, references and order."""

from __future__ import annotations

from typing import Any

import pytest

from sage_core.common.errors import InvalidWorkflow
from sage_core.kernel.dataflow.stream import Workflow
from sage_core.testing.flows import Flows


def items(*texts: str) -> dict[str, Any]:
    return {"use": "f.items", "with": {"texts": list(texts)}}


def step(use: str, inputs: dict[str, Any] | None = None, **more: Any) -> dict[str, Any]:
    return {"use": use, **({"in": inputs} if inputs else {}), **more}


def lines(flows: Flows) -> list[str]:
    log = flows.home / "log"
    return log.read_text(encoding="utf-8").splitlines() if log.exists() else []


def test_a_step_runs_once_per_row_of_its_deepest_input_and_ancestors_repeat(flows: Flows) -> None:
    report = flows.run(
        {
            "params": {"mark": {"type": "string"}},
            "steps": {
                "items": items("a b", "", "c"),
                "words": step("f.split", {"text": "items.text"}),
                "pair": step("f.pair", {"left": "words.word", "right": "items.text"}),
                "marked": step("f.pair", {"left": "params.mark", "right": "words.word"}),
            },
            "outputs": {"pair": "pair", "marked": "marked.right", "left": "marked.left"},
        },
        {"mark": "!"},
    )
    assert report.outputs["pair"] == [
        {"left": "a", "right": "a b"},
        {"left": "b", "right": "a b"},
        {"left": "c", "right": "c"},
    ]
    assert report.outputs["marked"] == ["a", "b", "c"]
    assert report.outputs["left"] == ["!", "!", "!"]
    assert report.steps["words"].rows_in == 3
    assert report.steps["pair"].rows_in == 3


def test_the_same_step_serves_one_value_and_a_stream(flows: Flows) -> None:
    tree: dict[str, Any] = {
        "params": {"q": {"type": "string"}},
        "steps": {
            "one": step("f.upper", {"text": "params.q"}),
            "items": items("a", "b"),
            "many": step("f.upper", {"text": "items.text"}),
        },
        "outputs": {"one": "one", "many": "many"},
    }
    assert flows.run(tree, {"q": "x"}).outputs == {"one": "X", "many": ["A", "B"]}


def test_unrelated_rows_are_refused_by_both_names(flows: Flows) -> None:
    with pytest.raises(InvalidWorkflow, match=r"unrelated rows: 'one\.text' .* and 'two\.text'"):
        flows.graph(
            {
                "steps": {
                    "one": items("a"),
                    "two": items("b"),
                    "pair": step("f.pair", {"left": "one.text", "right": "two.text"}),
                }
            }
        )


def test_absent_is_not_null(flows: Flows) -> None:
    report = flows.run(
        {
            "steps": {
                "items": items("null", "x", "skip"),
                "some": step("f.nothing", {"text": "items.text"}, when="items.text != 'skip'"),
                "pair": step("f.pair", {"left": "items.text", "right": "some.text"}),
                "maybe": step("f.pair", {"left": "items.text", "right": "some.text?"}),
            },
            "outputs": {"pair": "pair", "maybe": "maybe"},
        }
    )
    assert report.outputs["pair"] == [{"left": "null", "right": None}, {"left": "x", "right": "x"}]
    assert [row["right"] for row in report.outputs["maybe"]] == [None, "x", None]
    assert (report.steps["pair"].rows_in, report.steps["pair"].absent) == (2, 1)


def test_a_filter_holds_for_what_reads_its_columns_or_takes_its_rows(flows: Flows) -> None:
    report = flows.run(
        {
            "steps": {
                "items": items("aaaa", "b", "cccc", "dddd", "eeee", "ffff"),
                "short": step("f.short", {"text": "items.text"}),
                "upper": step("f.upper", {"text": "short.text"}),
                "ids": step("f.ident", {"id": "items.id"}, rows="upper", **{"with": {"log": str(flows.home / "log")}}),
                "more": step("f.ident", {"id": "ids.id"}),
            },
            "outputs": {"upper": "upper", "ids": "more"},
        }
    )
    assert report.outputs == {"upper": ["B"], "ids": [1]}
    assert lines(flows) == ["1"]
    assert report.steps["short"].rows_out == 1


def test_a_filter_in_a_chain_of_the_fluent_api_runs_the_rest_on_its_row(flows: Flows) -> None:
    workflow = Workflow("chain", base=flows.home)
    rows = workflow.source("f.items", texts=["aaaa", "b", "cccc", "dddd", "eeee", "ffff"])
    kept = rows.filter("f.short")
    workflow.output("near", kept.map("f.ident", id=rows.id, name="near"))
    workflow.output("far", kept.map("f.upper").map("f.ident", id=rows.id, name="far"))
    report = flows.run(workflow.to_dict(flows.host))
    assert report.outputs == {"near": [1], "far": [1]}
    assert (report.steps["near"].rows_in, report.steps["far"].rows_in) == (1, 1)


def test_a_batch_operator_may_filter_and_gets_only_rows_that_are_there(flows: Flows) -> None:
    report = flows.run(
        {
            "steps": {
                "items": items(*[f"{'x' * (number % 4)}" for number in range(20)]),
                "short": step("f.short", {"text": "items.text"}, **{"with": {"limit": 2}}),
                "many": step(
                    "f.upper_many",
                    {"text": "short.text"},
                    batch={"max": 4},
                    **{"with": {"log": str(flows.home / "log")}},
                ),
            }
        }
    )
    assert report.outputs["many"] == ["", "X"] * 5
    assert lines(flows) == ["4", "4", "2"]


def test_literals_field_references_and_whole_records(flows: Flows) -> None:
    report = flows.run(
        {
            "params": {"who": {"type": "json"}},
            "steps": {
                "items": items("a b", "c"),
                "one": step("f.pair", {"left": {"value": "fixed"}, "right": "items.text"}),
                "whole": step("f.whole", {"item": "items"}),
                "dict": step("f.whole_dict", {"item": "items"}),
                "named": step("f.upper", {"text": "params.who.name"}),
            },
            "outputs": {"one": "one.left", "whole": "whole", "dict": "dict", "named": "named"},
        },
        {"who": {"name": "ada"}},
    )
    assert report.outputs == {
        "one": ["fixed", "fixed"],
        "whole": ["Item 0 a b", "Item 1 c"],
        "dict": ["id text group", "id text group"],
        "named": "ADA",
    }


def test_expansion_inside_expansion(flows: Flows) -> None:
    report = flows.run(
        {
            "steps": {
                "items": items("ab c", "", "d"),
                "words": step("f.split_async", {"text": "items.text"}),
                "letters": step("f.letters", {"word": "words.word"}),
                "pair": step("f.pair", {"left": "letters.letter", "right": "items.text"}),
                "word": step("f.join", {"text": "letters.letter"}, per="words"),
                "item": step("f.join", {"text": "letters.letter"}, per="items"),
                "all": step("f.join", {"text": "letters.letter"}),
            },
            "outputs": {"pair": "pair.right", "word": "word", "item": "item", "all": "all"},
        }
    )
    assert report.outputs == {
        "pair": ["ab c", "ab c", "ab c", "d"],
        "word": ["a,b", "c", "d"],
        "item": ["a,b,c", "", "d"],
        "all": "a,b,c,d",
    }


def test_expansion_and_collect_in_stages_of_their_own(flows: Flows) -> None:
    """Checkpoints cut after each step, so every table goes through the store on its way."""
    report = flows.run(
        {
            "steps": {
                "items": items("ab c", "", "skip me", "d"),
                "words": step("f.split", {"text": "items.text"}, when="items.text != 'skip me'", checkpoint=True),
                "letters": step("f.letters", {"word": "words.word"}, checkpoint=True),
                "pair": step("f.pair", {"left": "letters.letter", "right": "items.text"}, checkpoint=True),
                "item": step("f.join", {"text": "pair.left"}, per="items", checkpoint=True),
                "word": step("f.join", {"text": "pair.left"}, per="words", checkpoint=True),
                "last": step("f.upper", {"text": "item.text"}),
            },
            "outputs": {"last": "last", "word": "word", "pair": "pair.right"},
        }
    )
    assert report.outputs == {
        "last": ["A,B,C", "", "D"],
        "word": ["a,b", "c", "d"],
        "pair": ["ab c", "ab c", "ab c", "d"],
    }


def test_results_keep_the_order_of_rows_whatever_is_done_first(flows: Flows) -> None:
    texts = ["x" * length for length in range(12)]
    report = flows.run({"steps": {"items": items(*texts), "up": step("f.upper_later", {"text": "items.text"})}})
    assert report.outputs["up"] == [text.upper() for text in texts]


def test_a_matrix_makes_a_row_per_cell_in_the_order_parent_cell_yield(flows: Flows) -> None:
    report = flows.run(
        {
            "steps": {
                "items": items("a b", "c"),
                "scale": step("f.scale", {"text": "items.text"}, matrix={"by": [1, 2], "sign": ["+", "-"]}),
                "words": step("f.words", {"text": "items.text"}, matrix={"by": [1, 2]}),
                "best": step("f.count", {"item": "scale.value"}, per="items"),
                "pair": step("f.pair", {"left": "scale.value", "right": "scale.sign"}),
                "alone": step("f.scale", {"text": {"value": "x"}}, matrix={"by": [3, 4]}),
            },
            "outputs": {"scale": "scale.value", "words": "words", "best": "best", "pair": "pair", "alone": "alone"},
        }
    )
    assert report.outputs["scale"] == ["a b+1", "a b-1", "a b+2", "a b-2", "c+1", "c-1", "c+2", "c-2"]
    assert [row["text"] for row in report.outputs["words"]] == ["a1", "b1", "a2", "b2", "c1", "c2"]
    assert [row["by"] for row in report.outputs["words"]] == [1, 1, 2, 2, 1, 2]
    assert report.outputs["best"] == [4, 4]
    assert report.outputs["pair"][1] == {"left": "a b-1", "right": "-"}
    assert report.outputs["alone"] == [{"value": "x+3", "by": 3}, {"value": "x+4", "by": 4}]


def test_a_matrix_of_a_filter_and_of_a_collect(flows: Flows) -> None:
    report = flows.run(
        {
            "steps": {
                "items": items("a", "bbb", "ccccc"),
                "short": step("f.short", {"text": "items.text"}, matrix={"limit": [2, 4]}),
                "tally": step("f.tally", {"text": "items.text", "id": "items.id"}, matrix={"sep": ["-", "+"]}),
                "words": step("f.split", {"text": "items.text"}),
                "per": step(
                    "f.tally", {"text": "words.word", "id": "words.at"}, per="items", matrix={"sep": ["-", "+"]}
                ),
                "pair": step("f.pair", {"left": "tally.value", "right": "tally.sep"}),
            },
            "outputs": {"short": "short.text", "limit": "short.limit", "pair": "pair", "per": "per.value"},
        }
    )
    assert report.outputs["short"] == ["a", "a", "bbb"]
    assert report.outputs["pair"] == [
        {"left": "0a-1bbb-2ccccc", "right": "-"},
        {"left": "0a+1bbb+2ccccc", "right": "+"},
    ]
    assert report.outputs["per"] == ["0a", "0a", "0bbb", "0bbb", "0ccccc", "0ccccc"]


def test_a_loop_runs_until_its_condition_holds_or_its_bound_is_reached(flows: Flows) -> None:
    tree: dict[str, Any] = {
        "steps": {
            "items": items("", "xxxx", "xx"),
            "grow": step(
                "f.grow", {"state": "items.text"}, repeat={"max": 3, "until": "done", "feed": {"state": "state"}}
            ),
        }
    }
    assert flows.run(tree).outputs["grow"] == [
        {"state": "xxx", "done": False},
        {"state": "xxxxx", "done": True},
        {"state": "xxxx", "done": True},
    ]


def test_no_rows_are_no_error_and_collects_still_run(flows: Flows) -> None:
    report = flows.run(
        {
            "params": {"label": {"type": "string", "default": "none"}},
            "steps": {
                "items": items(),
                "words": step("f.split", {"text": "items.text"}),
                "vector": step("f.embed", {"text": "words.word"}),
                "near": step("f.norm", {"vector": "vector.vector"}),
                "n": step("f.count", {"item": "near.norm"}),
                "labelled": step("f.labelled", {"text": "words.word", "label": "params.label"}),
                "tally": step("f.tally", {"text": "words.word", "id": "words.at"}),
                "after": step("f.upper", {"text": "labelled.text"}),
            },
            "outputs": {"n": "n", "after": "after", "tally": "tally", "near": "near"},
        }
    )
    assert report.status == "succeeded"
    assert report.outputs == {"n": 0, "after": "NONE:", "tally": "", "near": []}
    assert report.warnings == ()


def test_after_orders_whole_steps_and_touches_no_rows(flows: Flows) -> None:
    log = {"log": str(flows.home / "log")}
    report = flows.run(
        {
            "steps": {
                "items": {**items("a", "b", "c"), "partition": 1},
                "late": step("f.upper", {"text": "items.text"}, after="first", **{"with": log}),
                "first": step("f.sink", {"text": "items.text"}, **{"with": log}),
                "last": step("f.upper", {"text": {"value": "z"}}, after=["late"], **{"with": log}),
            }
        }
    )
    assert lines(flows) == ["a", "b", "c", "a", "b", "c", "z"]
    assert report.outputs["late"] == ["A", "B", "C"]


def test_vectors_are_blocks_and_merges_of_vectors_stay_vectors(flows: Flows) -> None:
    report = flows.run(
        {
            "params": {"q": {"type": "string", "default": "ab"}},
            "steps": {
                "items": items("a", "bb", "ccc"),
                "short": step("f.embed", {"text": "items.text"}, when="len(items.text) < 2"),
                "long": step("f.embed", {"text": "items.text"}, when="len(items.text) > 1"),
                "query": step("f.embed", {"text": "params.q"}),
                "near": step("f.near", {"vector": ["short.vector", "long.vector"], "query": "query.vector"}),
                "norm": step("f.norm", {"vector": ["short.vector", "long.vector"]}),
            },
            "outputs": {"near": "near", "norm": "norm", "query": "query"},
        }
    )
    query = [2.0, 195.0, 1.0]
    vectors = [[1.0, 97.0, 1.0], [2.0, 196.0, 1.0], [3.0, 297.0, 1.0]]
    assert report.outputs["query"] == query
    assert report.outputs["near"] == [sum(a * b for a, b in zip(one, query, strict=True)) for one in vectors]
    assert report.outputs["norm"] == [sum(a * a for a in one) for one in vectors]


def test_paths_and_held_objects(flows: Flows) -> None:
    log = str(flows.home / "log")
    report = flows.run(
        {
            "steps": {
                "items": items("a", "b"),
                "place": step("f.place", {"text": "items.text"}, **{"with": {"folder": "docs"}}),
                "held": step("f.held", {"text": "items.text"}, **{"with": {"prefix": "<", "suffix": ">", "log": log}}),
            }
        }
    )
    assert report.outputs["place"] == ["Path docs a", "Path docs b"]
    assert report.outputs["held"] == ["<a>", "<b>"]
    assert lines(flows) == ["open", "close"]


def test_a_condition_that_does_not_apply_names_the_step(flows: Flows) -> None:
    report = flows.run(
        {
            "steps": {
                "items": items("", "x"),
                "some": step("f.upper", {"text": "items.text"}, when="len(items.group) > 0"),
            }
        }
    )
    assert report.status == "failed"
    assert report.error.startswith("step 'some': its condition 'len(items.group) > 0': len does not apply to null")


def test_templates_are_filled_in_options_and_in_a_matrix(flows: Flows) -> None:
    report = flows.run(
        {
            "params": {"n": {"type": "int"}, "sign": {"type": "string"}},
            "steps": {
                "one": step("f.scale", {"text": {"value": "x"}}, **{"with": {"sign": "<${params.sign}>"}}),
                "cells": step(
                    "f.scale", {"text": {"value": "x"}}, matrix={"by": ["${params.n}", 2], "sign": ["${params.sign}"]}
                ),
            },
        },
        {"n": 7, "sign": "!"},
    )
    assert report.outputs["one"] == "x<!>1"
    assert report.outputs["cells"] == [
        {"value": "x!7", "by": 7, "sign": "!"},
        {"value": "x!2", "by": 2, "sign": "!"},
    ]
