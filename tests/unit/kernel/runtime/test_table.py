from __future__ import annotations

import numpy
import pytest

from sage_core.kernel.runtime.table import (
    Column,
    Frame,
    Table,
    block,
    both,
    concat,
    mask_of,
    merge,
    rows_of,
    spread,
    take,
)


def frame() -> Frame:
    """Two items; the first has two words, the second one; the words have 1, 0 and 2 letters."""
    made = Frame({"": (), "items": ("",), "words": ("items",), "letters": ("words",)})
    made.tables["items"] = Table("items", 2)
    made.tables["words"] = Table("words", 3, [0, 0, 1])
    made.tables["letters"] = Table("letters", 3, [0, 2, 2])
    made.tables["items"].columns["items.text"] = Column(["a b", "c"], [True, False])
    made.tables[""].columns["params.q"] = Column(["?"])
    return made


def test_columns_of_ancestors_repeat_with_their_presence() -> None:
    column = frame().column("letters", "items.text")
    assert (column.values, column.present) == (["a b", "c", "c"], [True, False, False])
    assert frame().column("letters", "params.q").values == ["?", "?", "?"]
    with pytest.raises(KeyError, match="not in reach"):
        frame().column("items", "words.word")


def test_presence_of_a_step_is_that_of_the_nearest_grain() -> None:
    made = frame()
    made.tables["items"].marks["items"] = [True, False]
    assert made.mark("words", "items") == [True, True, False]
    made.tables["words"].marks["items"] = None
    assert made.mark("letters", "items") is None


def test_rows_are_named_by_their_place_among_their_siblings() -> None:
    made = frame()
    assert [made.label("letters", row) for row in range(3)] == ["0/0/0", "1/0/0", "1/0/1"]
    assert made.label("words", 1) == "0/1"
    assert made.label("", 0) == ""
    assert Frame({"": (), "items": ("",)}, offset=5).label("", 0) == ""


def test_merging_takes_the_first_that_is_present() -> None:
    merged = merge([Column([1, 0, 0], [True, False, False]), Column([9, 2, 0], [True, True, False])], 3)
    assert (merged.values, merged.present) == ([1, 2, None], [True, True, False])
    whole = Column([1, 2])
    assert merge([whole, Column([3, 4])], 2) is whole


def test_masks_and_spreading() -> None:
    assert both(None, [True, False]) == [True, False]
    assert both([True, True], [True, False]) == [True, False]
    assert list(rows_of([False, True], 2)) == [1]
    assert mask_of([0, 1], 2) is None
    assert mask_of([1], 2) == [False, True]
    assert spread(["x"], [1], 3) == [None, "x", None]
    vectors = numpy.ones((1, 2), dtype=numpy.float32)
    assert spread(vectors, [1], 2).tolist() == [[0, 0], [1, 1]]


def test_blocks_stay_blocks_and_lists_lists() -> None:
    vectors = numpy.arange(4, dtype=numpy.float32).reshape(2, 2)
    assert take(vectors, [1]).tolist() == [[2, 3]]
    assert take([5, 6], [1, 1]) == [6, 6]
    assert concat([vectors, vectors[:0], vectors]).shape == (4, 2)
    assert concat([[1], [], [2]]) == [1, 2]
    # Where a whole batch failed its rows have no vectors, and where a partition is empty no shape.
    assert concat([[], [None], vectors, vectors[:0]]).tolist() == [[0, 0], [0, 1], [2, 3]]
    assert concat([vectors[:1], [vectors[1], None]]).tolist() == [[0, 1], [2, 3], [0, 0]]
    assert concat([]) == []
    assert block(list(vectors)).tolist() == vectors.tolist()
    assert block([]).shape == (0, 0)
