"""What a step reads, on frames made by hand over checked graphs."""

from __future__ import annotations

from typing import Any

import pytest

from sage_core.common.errors import OperatorError
from sage_core.kernel.dataflow.expressions import compile_when
from sage_core.kernel.dataflow.graph import Binding, Graph, Ref
from sage_core.kernel.runtime.bindings import bound_column, select, select_groups, select_items
from sage_core.kernel.runtime.table import Column, Frame, Mask, Table
from sage_core.testing.flows import Flows

ITEMS = {"use": "f.items", "with": {"texts": []}}


def graph(flows: Flows, **steps: dict[str, Any]) -> Graph:
    return flows.graph({"params": {"q": {"type": "string"}}, "steps": {"items": ITEMS, **steps}})


def frame(made: Graph, *texts: str, mark: Mask = None, **columns: Column) -> Frame:
    """The rows of `items`, and columns of steps over them by ``step__column``."""
    found = Frame({name: grain.parents for name, grain in made.grains.items()})
    found.tables[""].columns["params.q"] = Column(["Q"])
    table = found.tables["items"] = Table("items", len(texts))
    table.columns["items.text"] = Column(list(texts), mark)
    table.columns["items.id"] = Column(list(range(len(texts))), mark)
    table.columns["items.group"] = Column([None] * len(texts), mark)
    table.columns |= {name.replace("__", "."): column for name, column in columns.items()}
    table.marks["items"] = mark
    return found


def refs(*names: str, optional: bool = False) -> Binding:
    return Binding(refs=tuple(Ref(step=s, column=c, optional=optional) for s, c in (n.split(".") for n in names)))


def test_a_step_runs_where_all_that_it_reads_is_present(flows: Flows) -> None:
    made = graph(
        flows,
        up={"use": "f.upper", "in": {"text": "items.text"}},
        pair={"use": "f.pair", "in": {"left": "items.text", "right": "up.text"}},
    )
    rows = frame(made, "a", "b", "c", mark=[True, True, False], up__text=Column(["A", None, "C"], [True, False, True]))
    assert select(made, compile_when, rows, made.steps["pair"]) == ([0], {"left": ["a"], "right": ["A"]})
    assert select(made, compile_when, rows, made.steps["up"]) == ([0, 1], {"text": ["a", "b"]})


def test_a_step_that_reads_all_rows_takes_the_columns_as_they_are(flows: Flows) -> None:
    made = graph(flows, up={"use": "f.upper", "in": {"text": "items.text"}})
    rows = frame(made, "a", "b")
    chosen, ports = select(made, compile_when, rows, made.steps["up"])
    assert chosen == range(2)
    assert ports["text"] is rows.tables["items"].columns["items.text"].values


def test_rows_and_when_narrow_what_a_step_runs_on(flows: Flows) -> None:
    made = graph(
        flows,
        short={"use": "f.short", "in": {"text": "items.text"}},
        ident={"use": "f.ident", "in": {"id": "items.id"}, "rows": "short", "when": "items.text != 'b'"},
    )
    rows = frame(made, "a", "b", "c", "d")
    rows.tables["items"].marks["short"] = [True, True, True, False]
    assert select(made, compile_when, rows, made.steps["ident"]) == ([0, 2], {"id": [0, 2]})


def test_a_condition_that_cannot_be_evaluated_names_its_step(flows: Flows) -> None:
    made = graph(flows, ident={"use": "f.ident", "in": {"id": "items.id"}, "when": "items.group > 'a'"})
    with pytest.raises(OperatorError, match=r"step 'ident': its condition .*null"):
        select(made, compile_when, frame(made, "a"), made.steps["ident"])


def test_a_column_of_a_grain_above_is_repeated_and_a_literal_too(flows: Flows) -> None:
    made = graph(flows)
    rows = frame(made, "a", "b")
    assert bound_column(made, rows, "items", refs("params.q")).values == ["Q", "Q"]
    assert bound_column(made, rows, "items", Binding(value=[1])).values == [[1], [1]]


def test_an_optional_reference_is_null_where_its_row_is_absent(flows: Flows) -> None:
    made = graph(flows)
    rows = frame(made, "a", "b", mark=[False, True])
    plain = bound_column(made, rows, "items", refs("items.text"))
    maybe = bound_column(made, rows, "items", refs("items.text", optional=True))
    assert plain.present == [False, True]
    assert (maybe.values, maybe.present) == ([None, "b"], None)


def test_several_references_give_the_first_that_is_present(flows: Flows) -> None:
    made = graph(flows, up={"use": "f.upper", "in": {"text": "items.text"}})
    rows = frame(made, "a", "b", "c", mark=[True, False, False], up__text=Column(["A", "B", "C"], [True, True, False]))
    merged = bound_column(made, rows, "items", refs("items.text", "up.text"))
    assert (merged.values[:2], merged.present) == (["a", "B"], [True, True, False])


def test_a_whole_record_is_a_dictionary_where_all_its_columns_are_present(flows: Flows) -> None:
    made = graph(flows)
    rows = frame(made, "a", "b", mark=[True, False])
    record = bound_column(made, rows, "items", Binding(refs=(Ref(step="items", column=""),)))
    assert record.values[0] == {"id": 0, "text": "a", "group": None}
    assert record.present == [True, False]


def test_a_field_that_is_missing_or_below_no_dictionary_is_null(flows: Flows) -> None:
    made = graph(flows)
    values = [{"k": {"deep": 1}}, {"k": {}}, {"k": 3}, None]
    rows = frame(made, "a", "b", "c", "d", up__text=Column(values))
    field = Binding(refs=(Ref(step="up", column="text", fields=("k", "deep")),))
    assert bound_column(made, rows, "items", field).values == [1, None, None, None]


def test_a_collect_reads_its_items_and_its_groups_apart(flows: Flows) -> None:
    made = graph(
        flows,
        words={"use": "f.split", "in": {"text": "items.text"}},
        joined={"use": "f.labelled", "in": {"text": "words.word", "label": "items.text"}, "per": "items"},
    )
    rows = frame(made, "a b", "c", mark=[True, False])
    words = rows.tables["words"] = Table("words", 3, [0, 0, 1])
    words.columns["words.word"] = Column(["a", "b", "c"], [True, False, True])
    words.marks["words"] = None
    step = made.steps["joined"]
    assert select_items(made, compile_when, rows, step) == ([0, 2], {"text": ["a", "c"]})
    assert select_groups(made, compile_when, rows, step, "items") == ([0], {"label": ["a b"]})
