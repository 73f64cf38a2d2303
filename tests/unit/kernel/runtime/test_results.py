from __future__ import annotations

from pathlib import Path

import numpy
import pytest

from sage_core.common.errors import CorruptArtifact, OperatorError
from sage_core.common.operators import Artifact
from sage_core.common.records import RowFailure
from sage_core.kernel.runtime.results import INLINE, Result, Tables, decode_result, mentions, slice_table
from sage_core.kernel.runtime.table import Column, Table
from sage_core.kernel.runtime.values import Codec
from sage_core.platform.artifacts import ArtifactStore


@pytest.fixture
def tables(tmp_path: Path) -> Tables:
    return Tables(Codec(tmp_path), ArtifactStore(tmp_path))


def sample(text: str = "x") -> Table:
    table = Table("words", 3, [0, 0, 1])
    table.columns["s.text"] = Column([text, None, "z"], [True, True, False])
    table.columns["s.n"] = Column([1, 2, 2**64 - 1])
    table.columns["s.f"] = Column([0.5, None, 1.5])
    table.columns["s.list"] = Column([["a"], [], [{"k": 1}]])
    table.columns["s.vector"] = Column(numpy.arange(6, dtype=numpy.float32).reshape(3, 2))
    table.columns["s.none"] = Column([None, None, None])
    table.marks = {"s": [True, True, False], "t>": None}
    return table


@pytest.mark.parametrize("text", ["x", "x" * INLINE], ids=["inline", "parquet"])
def test_a_table_comes_back_from_the_store_as_it_was(tables: Tables, text: str) -> None:
    table = sample(text)
    stored = tables.write(table, table.columns, table.marks)
    assert bool(stored.file) is (len(text) > 1)
    back = tables.read(stored, "words", table.columns)
    assert (back.n, back.parent, back.marks) == (3, [0, 0, 1], table.marks)
    for key, column in table.columns.items():
        read = back.columns[key]
        assert read.present == column.present
        shown = [None if column.present and not column.present[row] else column.values[row] for row in range(3)]
        found = [None if column.present and not column.present[row] else read.values[row] for row in range(3)]
        assert str(found) == str(shown)
    assert tables.digests(back, table.columns, table.marks) == tables.digests(table, table.columns, table.marks)


def test_only_the_columns_that_are_asked_for_are_read_from_a_file(tables: Tables) -> None:
    table = sample("x" * INLINE)
    back = tables.read(tables.write(table, table.columns, table.marks), "words", ["s.n"])
    assert list(back.columns) == ["s.n"]
    assert back.marks == table.marks


def test_a_damaged_file_is_refused(tables: Tables, tmp_path: Path) -> None:
    table = sample("x" * INLINE)
    stored = tables.write(table, table.columns, table.marks)
    (place,) = tmp_path.glob("??/*.parquet")
    place.write_bytes(place.read_bytes()[:-20] + b"x" * 20)
    with pytest.raises(CorruptArtifact):
        tables.read(stored, "words", ["s.n"])


def test_a_digest_sees_values_and_presence_but_not_what_stands_in_absent_places(tables: Tables) -> None:
    first = tables.column_digest(Column([1, 2], [True, False]))
    assert first == tables.column_digest(Column([1, "other"], [True, False]))
    assert first != tables.column_digest(Column([1, 2]))
    assert first != tables.column_digest(Column([1, None]))
    vectors = numpy.array([[1.0], [2.0]], dtype=numpy.float32)
    other = numpy.array([[1.0], [9.0]], dtype=numpy.float32)
    assert tables.column_digest(Column(vectors, [True, False])) == tables.column_digest(Column(other, [True, False]))


@pytest.mark.parametrize("value", [2**70, object(), "\ud800"], ids=["int", "object", "surrogate"])
def test_a_value_that_cannot_be_kept_names_its_step_and_column(tables: Tables, value: object) -> None:
    table = Table("items", 1)
    table.columns["s.n"] = Column([value])
    with pytest.raises(OperatorError, match="step 's': column 'n' cannot be kept: "):
        tables.digests(table, ["s.n"], [])


def test_rows_of_equal_content_have_equal_hashes(tables: Tables) -> None:
    table = Table("items", 3)
    assert len(set(tables.row_hashes(table))) == 3
    table.columns["i.text"] = Column(["a", "b", "a"])
    first, second, third = tables.row_hashes(table)
    assert first == third != second


def test_a_slice_keeps_columns_and_marks() -> None:
    table = Table("items", 3)
    table.columns["i.text"] = Column(["a", "b", "c"], [True, False, True])
    table.marks = {"i": [True, False, True], "j": None}
    part = slice_table(table, 1, 3)
    assert (part.n, part.columns["i.text"].values, part.columns["i.text"].present) == (2, ["b", "c"], [False, True])
    assert part.marks == {"i": [False, True], "j": None}


def test_a_result_is_encoded_whole() -> None:
    result = Result(digests={"a.b": "1"}, failures=(RowFailure(step="s", row="0/1", kind="E", message="m"),), start=7)
    assert decode_result(result.encode()) == result


def test_artifacts_are_found_anywhere_inside_a_value(tmp_path: Path) -> None:
    one, two = Artifact(tmp_path, "1"), Artifact(tmp_path, "2")
    assert mentions([{"a": one}, ["x", [two]], None], Artifact) == [one, two]
    assert mentions(["x", 1, None], Artifact) == []
