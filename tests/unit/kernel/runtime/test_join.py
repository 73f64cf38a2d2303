"""The join of two lineages, on frames made by hand."""

from __future__ import annotations

from typing import Any, Literal

import numpy

from sage_core.kernel.dataflow.graph import Join, Ref, Signature, Step
from sage_core.kernel.runtime.join import joined
from sage_core.kernel.runtime.table import Column, Frame, Mask, Table

PARENTS: dict[str, tuple[str, ...]] = {"": (), "a": ("",), "b": ("",), "both": ("a", "b")}
CARRIED = {"a.name": "left", "b.name": "right"}


def step(*keys: str, how: Literal["inner", "left"] = "inner") -> Step:
    on = tuple((Ref(step="a", column=key), Ref(step="b", column=key)) for key in keys or ("key",))
    join = Join(left="a", right="b", on=on, how=how)
    signature = Signature(operator="join", shape="join")
    return Step(name="both", use="join", signature=signature, grain="both", out="both", join=join)


def frame(grain: str, mark: Mask = None, **columns: Any) -> Frame:
    """One partition of a root grain; a column is a list, a block or a `Column`."""
    made = Frame(PARENTS)
    kept = {name: each if isinstance(each, Column) else Column(each) for name, each in columns.items()}
    table = made.tables[grain] = Table(grain, len(next(iter(kept.values())).values))
    table.columns = {f"{grain}.{name}": column for name, column in kept.items()}
    table.marks[grain] = mark
    return made


def rows(table: Table, *columns: str) -> list[tuple[object, ...]]:
    """The table's rows; an absent value is shown as an ellipsis."""

    def shown(column: Column) -> list[object]:
        return [
            value if column.present is None or column.present[row] else ... for row, value in enumerate(column.values)
        ]

    return list(zip(*(shown(table.columns[name]) for name in columns or CARRIED), strict=True))


def test_an_inner_join_keeps_the_left_order_and_within_it_the_right_one() -> None:
    left = frame("a", key=[2, 1, 9, 2], name=["p", "q", "r", "s"])
    right = frame("b", key=[1, 2, 2, 7], name=["one", "two", "zwei", "seven"])
    table = joined(step(), [left], [right], CARRIED)
    assert rows(table) == [("p", "two"), ("p", "zwei"), ("q", "one"), ("s", "two"), ("s", "zwei")]
    assert (table.grain, table.n, table.parent, table.marks) == ("both", 5, None, {"both": None})


def test_a_left_join_has_a_row_for_each_left_one_and_absent_right_columns() -> None:
    left = frame("a", key=[1, 2], name=["p", "q"])
    right = frame("b", key=[2], name=["two"])
    table = joined(step(how="left"), [left], [right], CARRIED)
    assert rows(table) == [("p", ...), ("q", "two")]
    assert table.columns["a.name"].present is None


def test_a_null_key_matches_nothing_not_even_another_null() -> None:
    left = frame("a", key=[None, 1], name=["p", "q"])
    right = frame("b", key=[None, 1], name=["none", "one"])
    assert rows(joined(step(), [left], [right], CARRIED)) == [("q", "one")]
    assert rows(joined(step(how="left"), [left], [right], CARRIED)) == [("p", ...), ("q", "one")]


def test_several_keys_match_all_together() -> None:
    left = frame("a", key=[1, 1, 2, 1], day=["mo", "tu", "mo", None], name=["p", "q", "r", "s"])
    right = frame("b", key=[1, 2, 1], day=["mo", "tu", None], name=["x", "y", "z"])
    assert rows(joined(step("key", "day"), [left], [right], CARRIED)) == [("p", "x")]


def test_rows_that_a_step_dropped_take_no_part_on_either_side() -> None:
    left = frame("a", [True, False], key=[1, 1], name=["p", "q"])
    right = frame("b", [False, True], key=[1, 1], name=["x", "y"])
    assert rows(joined(step(how="left"), [left], [right], CARRIED)) == [("p", "y")]


def test_partitions_of_both_sides_are_joined_across_their_borders() -> None:
    left = [frame("a", key=[1], name=["p"]), frame("a", key=[2], name=["q"])]
    right = [frame("b", key=[2], name=["x"]), frame("b", [False], key=[1], name=["y"]), frame("b", key=[1], name=["z"])]
    assert rows(joined(step(), left, right, CARRIED)) == [("p", "z"), ("q", "x")]


def test_an_empty_right_side_gives_absent_columns_and_an_empty_left_one_no_rows() -> None:
    full = frame("a", key=[1], name=["p"])
    assert rows(joined(step(how="left"), [full], [frame("b", key=[], name=[])], CARRIED)) == [("p", ...)]
    assert rows(joined(step(how="left"), [full], [], CARRIED)) == [("p", ...)]
    assert rows(joined(step(), [full], [], CARRIED)) == []
    assert joined(step(how="left"), [], [frame("b", key=[1], name=["x"])], CARRIED).n == 0


def test_carried_columns_keep_their_own_presence_and_vectors_stay_a_block() -> None:
    left = frame("a", key=[1, 2], name=Column(["p", "junk"], [True, False]))
    vectors = numpy.array([[1, 2], [3, 4]], dtype=numpy.float32)
    right = frame("b", key=[2, 1], name=Column(["x", "junk"], [True, False]), vector=vectors)
    table = joined(step(), [left], [right], {**CARRIED, "b.vector": "right"})
    assert rows(table) == [("p", ...), (..., "x")]
    assert table.columns["b.vector"].values.tolist() == [[3, 4], [1, 2]]
    assert list(table.columns) == ["a.name", "b.name", "b.vector"]


def test_a_side_below_its_root_brings_the_values_of_the_rows_above() -> None:
    left = frame("a", key=[1], name=["p"])
    right = frame("b", name=["x", "y"])
    child = right.tables["c"] = Table("c", 3, [1, 0, 0])
    child.columns["c.key"] = Column([1, 2, 1])
    child.marks["c"] = None
    right = _with_parents(right, {**PARENTS, "c": ("b",), "both": ("a", "c")})
    on = ((Ref(step="a", column="key"), Ref(step="c", column="key")),)
    deeper = Step(
        name="both",
        use="join",
        signature=Signature(operator="join", shape="join"),
        grain="both",
        out="both",
        join=Join(left="a", right="c", on=on),
    )
    assert rows(joined(deeper, [left], [right], CARRIED)) == [("p", "y"), ("p", "x")]


def _with_parents(frame: Frame, parents: dict[str, tuple[str, ...]]) -> Frame:
    made = Frame(parents)
    made.tables |= frame.tables
    return made
