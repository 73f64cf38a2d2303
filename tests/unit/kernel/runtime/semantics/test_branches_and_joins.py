"""Branches, merges, joins, collects of groups, and what a run gives back."""

from __future__ import annotations

from typing import Any

import pytest

from sage_core.common.errors import InvalidWorkflow
from sage_core.testing.flows import Flows
from tests.unit.kernel.runtime.semantics.test_rows import items, lines, step


def test_branches_merge_to_the_first_that_is_present(flows: Flows) -> None:
    report = flows.run(
        {
            "steps": {
                "items": items("a", "bb", "c"),
                "one": step("f.upper", {"text": "items.text"}, when="len(items.text) == 1"),
                "two": step("f.scale", {"text": "items.text"}, when="len(items.text) == 2"),
                "merged": step("f.pair", {"left": ["one.text", "two.value"], "right": "items.text"}),
                "both": step("f.pair", {"left": "one.text", "right": "two.value"}),
            },
            "outputs": {"merged": "merged.left", "direct": ["one.text", "two.value", "items.text"], "both": "both"},
        }
    )
    assert report.outputs == {"merged": ["A", "bb+1", "C"], "direct": ["A", "bb+1", "C"], "both": []}
    assert report.warnings == ("step 'both' ran on 0 of 3 rows",)


def test_a_branch_of_the_run_that_is_not_taken_is_no_warning(flows: Flows) -> None:
    tree: dict[str, Any] = {
        "params": {"deep": {"type": "bool", "default": False}, "text": {"type": "string", "default": "x"}},
        "steps": {
            "deep": step("f.upper", {"text": "params.text"}, when="params.deep"),
            "deeper": step("f.upper", {"text": "deep.text"}),
            "plain": step("f.scale", {"text": "params.text"}, when="not params.deep"),
            "merged": step("f.upper", {"text": ["deeper.text", "plain.value"]}),
        },
        "outputs": {"merged": "merged", "deep": "deeper"},
    }
    report = flows.run(tree)
    assert report.outputs == {"merged": "X+1", "deep": None}
    assert report.warnings == ()
    assert flows.run(tree, {"deep": True}).outputs == {"merged": "X", "deep": "X"}


def test_a_merge_reads_an_ancestor_where_the_deeper_one_is_absent(flows: Flows) -> None:
    report = flows.run(
        {
            "steps": {
                "items": items("ab c", "d"),
                "words": step("f.split", {"text": "items.text"}),
                "long": step("f.upper", {"text": "words.word"}, when="len(words.word) > 1"),
                "merged": step("f.ident", {"id": "items.id"}, rows="words"),
            },
            "outputs": {"all": ["long.text", "items.text"], "ids": "merged"},
        }
    )
    assert report.outputs == {"all": ["AB", "ab c", "d"], "ids": [0, 0, 1]}


def test_groups_that_were_expanded_and_are_empty_differ_from_those_never_expanded(flows: Flows) -> None:
    report = flows.run(
        {
            "steps": {
                "items": items("a b", "", "dropped one", "c"),
                "kept": step("f.short", {"text": "items.text"}, **{"with": {"limit": 5}}),
                "words": step("f.split", {"text": "kept.text"}),
                "only_b": step("f.upper", {"text": "words.word"}, when="words.word == 'b'"),
                "join": step("f.join", {"text": "only_b.text"}, per="items"),
                "n": step("f.count", {"item": "join.text"}),
            },
            "outputs": {"join": "join", "n": "n"},
        }
    )
    assert report.outputs == {"join": ["B", "", ""], "n": 3}


def test_a_collect_takes_values_of_its_group_and_waits_for_its_condition(flows: Flows) -> None:
    tree: dict[str, Any] = {
        "params": {"on": {"type": "bool", "default": False}, "label": {"type": "string", "default": "L"}},
        "steps": {
            "items": items("a b", "", "c"),
            "words": step("f.split", {"text": "items.text"}),
            "per": step("f.labelled", {"text": "words.word", "label": "items.text"}, per="items"),
            "some": step(
                "f.labelled", {"text": "words.word", "label": "items.text"}, per="items", when="items.id != 0"
            ),
            "all": step("f.labelled", {"text": "words.word", "label": "params.label"}, when="params.on"),
            "filtered": step("f.join", {"text": "words.word"}, rows="some"),
        },
        "outputs": {"per": "per", "some": "some", "all": "all", "filtered": "filtered"},
    }
    report = flows.run(tree)
    assert report.outputs == {"per": ["a b:a,b", ":", "c:c"], "some": [":", "c:c"], "all": None, "filtered": "c"}
    assert flows.run(tree, {"on": True}).outputs["all"] == "L:a,b,c"


def test_folds_see_every_row_once_in_order(flows: Flows) -> None:
    texts = [f"t{number}" for number in range(30)]
    report = flows.run(
        {
            "steps": {
                "items": {**items(*texts), "partition": 8},
                "tally": step("f.tally", {"text": "items.text", "id": "items.id"}, batch={"max": 3}),
                "later": step("f.tally_later", {"text": "items.text"}, batch={"max": 3}),
                "whole": step("f.join", {"text": "items.text"}),
                "book": step("f.book", {"text": "items.text"}),
                "read": step("f.read", {"book": "book", "text": {"value": "t7"}}),
            },
            "outputs": {"tally": "tally", "later": "later", "whole": "whole", "book": "book", "read": "read"},
        }
    )
    assert report.outputs["tally"] == ",".join(f"{number}t{number}" for number in range(30))
    assert report.outputs["later"] == report.outputs["whole"] == ",".join(texts)
    assert report.outputs["book"]["artifact"] == "Book"
    assert report.outputs["read"] is True


JOIN: dict[str, Any] = {
    "orders": {**items("ann 1", "bob 2", "ann 3", "eve 4", ""), "partition": 2},
    "people": items("ann x", "bob y", "bob z", ""),
}


@pytest.mark.parametrize(
    ("how", "expected"),
    [
        ("inner", ["ann 1|ann x", "bob 2|bob y", "bob 2|bob z", "ann 3|ann x"]),
        ("left", ["ann 1|ann x", "bob 2|bob y", "bob 2|bob z", "ann 3|ann x", "eve 4|None", "|None"]),
    ],
)
def test_a_join_keeps_the_left_order_and_null_matches_nothing(flows: Flows, how: str, expected: list[str]) -> None:
    report = flows.run(
        {
            "steps": {
                **JOIN,
                "pairs": {
                    "use": "join",
                    "in": {"left": "orders", "right": "people"},
                    "on": {"orders.group": "people.group"},
                    "how": how,
                },
                "show": step("f.pair", {"left": "orders.text", "right": "people.text?"}, rows="pairs"),
                "n": step("f.count", {"item": "show.left"}),
            },
            "outputs": {"show": "show", "n": "n"},
        }
    )
    assert [f"{row['left']}|{row['right']}" for row in report.outputs["show"]] == expected
    assert report.outputs["n"] == len(expected)


def test_the_unmatched_side_is_absent_and_not_null(flows: Flows) -> None:
    report = flows.run(
        {
            "steps": {
                **JOIN,
                "pairs": {
                    "use": "join",
                    "in": {"left": "orders", "right": "people"},
                    "on": {"orders.group": "people.group"},
                    "how": "left",
                },
                "matched": step("f.pair", {"left": "orders.text", "right": "people.text"}, rows="pairs"),
                "all": step("f.ident", {"id": "orders.id"}, rows="pairs"),
            },
            "outputs": {"matched": "matched.left", "all": "all"},
        }
    )
    assert report.outputs["matched"] == ["ann 1", "bob 2", "bob 2", "ann 3"]
    assert report.outputs["all"] == [0, 1, 1, 2, 3, 4]


def test_composite_keys_ancestors_of_both_sides_and_steps_below_a_join(flows: Flows) -> None:
    report = flows.run(
        {
            "steps": {
                "left": items("a b", "b c"),
                "lw": step("f.split", {"text": "left.text"}),
                "right": items("x b", "y a b"),
                "rw": step("f.split", {"text": "right.text"}),
                "pairs": {
                    "use": "join",
                    "in": {"left": "lw", "right": "rw"},
                    "on": {"lw.word": "rw.word", "lw.at": "rw.at"},
                },
                "show": step("f.pair", {"left": "left.text", "right": "right.text"}, rows="pairs"),
                "words": step("f.split", {"text": "show.left"}),
                "again": step("f.pair", {"left": "words.word", "right": "rw.word"}),
                "per": step("f.join", {"text": "again.left"}, per="pairs"),
                "n": step("f.count", {"item": "words.word"}),
            },
            "outputs": {"show": "show", "again": "again.right", "per": "per", "n": "n"},
        }
    )
    assert report.outputs == {
        "show": [{"left": "a b", "right": "x b"}],
        "again": ["b", "b"],
        "per": ["a,b"],
        "n": 2,
    }


def test_a_join_of_filtered_sides_and_a_join_below_a_join(flows: Flows) -> None:
    report = flows.run(
        {
            "steps": {
                "a": items("k 1", "k 2", "longer 3"),
                "short": step("f.short", {"text": "a.text"}, **{"with": {"limit": 4}}),
                "b": items("k x", "k yy"),
                "some": step("f.short", {"text": "b.text"}, **{"with": {"limit": 4}}),
                "ab": {
                    "use": "join",
                    "in": {"left": "short", "right": "some"},
                    "on": {"a.group": "b.group"},
                },
                "c": items("k !"),
                "abc": {"use": "join", "in": {"left": "ab", "right": "c"}, "on": {"a.group": "c.group"}},
                "show": step("f.pair", {"left": "b.text", "right": "a.text"}, rows="abc"),
            },
            "outputs": {"show": "show"},
        }
    )
    assert report.outputs["show"] == [{"left": "k x", "right": "k 1"}, {"left": "k x", "right": "k 2"}]


def test_collecting_join_rows_per_row_of_one_side_is_refused(flows: Flows) -> None:
    with pytest.raises(InvalidWorkflow, match="cannot collect per 'orders'"):
        flows.graph(
            {
                "steps": {
                    **JOIN,
                    "pairs": {
                        "use": "join",
                        "in": {"left": "orders", "right": "people"},
                        "on": {"orders.group": "people.group"},
                    },
                    "per": step("f.join", {"text": "people.text"}, per="orders", rows="pairs"),
                }
            }
        )


def test_outputs_keep_their_order_and_without_any_the_leaves_are_given(flows: Flows) -> None:
    steps = {
        "items": items("b", "a"),
        "up": step("f.upper", {"text": "items.text"}),
        "pair": step("f.pair", {"left": "items.text", "right": "items.text"}),
        "log": step("f.sink", {"text": "items.text"}, **{"with": {"log": str(flows.home / "log")}}),
    }
    report = flows.run({"steps": steps})
    assert report.outputs == {"up": ["B", "A"], "pair": [{"left": "b", "right": "b"}, {"left": "a", "right": "a"}]}
    assert lines(flows) == ["b", "a"]
    report = flows.run({"steps": steps, "outputs": {"z": "up", "a": "items.id", "m": "items"}})
    assert list(report.outputs) == ["z", "a", "m"]
    assert report.outputs["m"][0] == {"id": 0, "text": "b", "group": "b"}


def test_an_output_that_merges_unrelated_rows_is_refused(flows: Flows) -> None:
    with pytest.raises(InvalidWorkflow, match="unrelated rows"):
        flows.graph({"steps": {"a": items("x"), "b": items("y")}, "outputs": {"both": ["a.text", "b.text"]}})
