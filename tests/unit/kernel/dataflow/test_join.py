from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from sage_core.common.errors import InvalidWorkflow
from sage_core.kernel.dataflow.check import check_tree
from sage_core.kernel.dataflow.graph import Graph, Join, Ref
from tests.workflows import sample_operators

ON = {"people.id": "orders.customer"}


def graph(**steps: dict[str, Any]) -> Graph:
    sources = {
        "people": {"use": "t.people", "with": {"source": "p"}},
        "orders": {"use": "t.orders", "with": {"source": "o"}},
    }
    return check_tree({"sage": 1, "steps": {**sources, **steps}}, sample_operators.host(), base=Path("/"))


def join(left: str = "people", right: str = "orders", on: Any = None, **more: Any) -> dict[str, Any]:
    return {"use": "join", "in": {"left": left, "right": right}, "on": ON if on is None else on, **more}


@pytest.mark.parametrize("on", [ON, [["people.id", "orders.customer"]], [["orders.customer", "people.id"]]])
def test_pairs_are_written_in_any_of_three_ways(on: Any) -> None:
    found = graph(pair=join(on=on)).steps["pair"]
    pairs = ((Ref(step="people", column="id"), Ref(step="orders", column="customer")),)
    assert found.join == Join(left="people", right="orders", on=pairs, how="inner")
    assert (found.grain, found.out, found.columns, found.ports) == ("pair", "pair", {}, {})


def test_a_key_may_stand_on_an_ancestor_of_a_side() -> None:
    below = {"use": "t.chunk", "in": {"text": "people.region"}}
    found = graph(parts=below, pair=join("parts", "orders"))
    assert found.grains["pair"].parents == ("parts", "orders")
    assert found.lineage("pair") == ("pair", "parts", "orders", "people", "")


def test_a_join_of_a_join() -> None:
    more = {"use": "t.people", "with": {"source": "q"}}
    found = graph(pair=join(), more=more, all=join("pair", "more", {"orders.customer": "more.id"}))
    assert set(found.lineage("all")) == {"all", "pair", "people", "orders", "more", ""}
    assert found.steps["all"].join is not None
    with pytest.raises(InvalidWorkflow, match="'pair' and 'orders' both come from the rows of 'orders'"):
        graph(pair=join(), again=join("pair", "orders", {"people.id": "orders.customer"}))


@pytest.mark.parametrize(
    ("on", "message"),
    [
        ({}, "'on' names no columns"),
        (3, "'on' takes pairs of columns, not 3"),
        ([["people.id"]], "'on' takes pairs of columns, not a list"),
        ([["people.id", 3]], "'on' takes pairs of columns, not 3"),
        ({"people.id": "orders.customer?"}, "'orders.customer?': a null key matches nothing"),
        ({"people": "orders"}, "'people' is a record of all its columns and cannot be a key"),
        ({"people.id": "a b"}, "'a b' is not a reference"),
    ],
)
def test_what_is_no_pair(on: Any, message: str) -> None:
    with pytest.raises(InvalidWorkflow) as error:
        graph(pair=join(on=on))
    assert message in str(error.value)


def test_a_side_that_is_unknown_says_nothing_of_the_keys_of_the_other() -> None:
    with pytest.raises(InvalidWorkflow) as error:
        graph(pair=join("people", "odd", {"people.id": "odd.key"}), odd={"use": "t.gone"})
    assert [text.partition("\n")[0] for text in error.value.diagnostics] == [
        "steps.odd.use: no operator is named 't.gone'"
    ]
