"""Tables as Parquet files: every kind of column goes there and comes back."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy
import pyarrow.parquet
import pytest

from sage_core.common.errors import CorruptArtifact
from sage_core.common.operators import Artifact
from sage_core.kernel.runtime import parquet
from sage_core.kernel.runtime.table import Column, Table
from sage_core.kernel.runtime.values import Codec


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "table.parquet"


def table(n: int, /, **columns: Column) -> Table:
    made = Table("items", n)
    made.columns = {f"s.{name}": column for name, column in columns.items()}
    return made


def returned(file: Path, given: Table) -> Table:
    """Write a table whole and read it whole."""
    codec = Codec(file.parent)
    parquet.write(file, given, given.columns, given.marks, codec)
    return parquet.read(file, given.grain, list(given.columns), codec)


@pytest.mark.parametrize(
    "values",
    [
        ["a", "", "ü\0"],
        [1, -(2**63), 2**63 - 1],
        [0.5, float("inf"), -0.0],
        [True, False, True],
        [b"", b"\xff", b"x"],
        ["a", None, "b"],
        [None, 1, None],
        [None, None, None],
        [2**64 - 1, 0, -1],
        [1, 1.5, True],
        ["a", 1, None],
        [[], ["x"], [1, [2]]],
        [{"k": None}, {}, {"k": [{"deep": "v"}]}],
    ],
    ids=lambda values: type(values[0]).__name__ + str(len(repr(values))),
)
def test_values_come_back_equal_and_of_their_type(file: Path, values: list[Any]) -> None:
    back = returned(file, table(3, c=Column(values))).columns["s.c"]
    assert back.present is None
    assert back.values == values
    assert [type(value) for value in back.values] == [type(value) for value in values]


def test_plain_values_have_arrow_types_and_others_are_packed(file: Path) -> None:
    kinds = {"text": ["a"], "n": [1], "big": [2**64 - 1], "mixed": [{"k": 1}], "none": [None]}
    returned(file, table(1, **{name: Column(values) for name, values in kinds.items()}))
    schema = pyarrow.parquet.read_schema(file)
    packed = {"s.big", "s.mixed", "s.none"}
    assert {name for name in schema.names if schema.field(name).type == "binary"} == packed
    assert [str(schema.field(name).type) for name in ("s.text", "s.n")] == ["string", "int64"]


@pytest.mark.parametrize("shape", [(3, 2), (3, 1), (0, 4)], ids=str)
def test_vectors_come_back_as_one_block(file: Path, shape: tuple[int, int]) -> None:
    block = numpy.arange(shape[0] * shape[1], dtype=numpy.float32).reshape(shape)
    back = returned(file, table(shape[0], vector=Column(block))).columns["s.vector"].values
    assert (back.dtype, back.shape, back.tolist()) == (numpy.float32, shape, block.tolist())


def test_a_block_of_no_vectors_comes_back_empty(file: Path) -> None:
    back = returned(file, table(0, vector=Column(numpy.zeros((0, 0), dtype=numpy.float32))))
    assert len(back.columns["s.vector"].values) == 0


def test_artifacts_come_back_below_the_readers_folder(file: Path) -> None:
    (back,) = returned(file, table(1, book=Column([Artifact(Path("elsewhere"), "abcd")]))).columns["s.book"].values
    assert (type(back), back.digest, back.path) == (Artifact, "abcd", file.parent / "ab" / "abcd")


def test_presence_parents_and_marks_come_back(file: Path) -> None:
    given = table(3, text=Column(["a", object(), "c"], [True, False, True]), n=Column([1, None, 3]))
    given.parent = [0, 0, 4]
    given.marks = {"s": [True, False, True], "t>": None, "none": [False] * 3}
    back = returned(file, given)
    assert (back.n, back.grain, back.parent, back.marks) == (3, "items", [0, 0, 4], given.marks)
    # What stands in an absent place has no meaning, so it is not kept; a null that is present is a value.
    assert (back.columns["s.text"].values, back.columns["s.text"].present) == (["a", None, "c"], [True, False, True])
    assert (back.columns["s.n"].values, back.columns["s.n"].present) == ([1, None, 3], None)


@pytest.mark.parametrize("n", [0, 5])
def test_a_table_without_columns_keeps_its_number_of_rows(file: Path, n: int) -> None:
    back = returned(file, table(n))
    assert (back.n, back.columns, back.marks, back.parent) == (n, {}, {}, None)


def test_an_empty_table_keeps_its_columns(file: Path) -> None:
    back = returned(file, table(0, text=Column([]), n=Column([], [])))
    assert {name: column.values for name, column in back.columns.items()} == {"s.text": [], "s.n": []}


def test_only_the_columns_asked_for_are_read_with_their_own_presence(file: Path) -> None:
    given = table(2, a=Column([1, 2], [True, False]), b=Column(["x", "y"], [False, True]))
    given.marks = {"s": None}
    returned(file, given)
    back = parquet.read(file, "items", ["s.b", "s.missing"], Codec(file.parent))
    assert list(back.columns) == ["s.b"]
    assert back.columns["s.b"].present == [False, True]
    assert back.marks == {"s": None}


@pytest.mark.parametrize("content", [b"", b"PAR1", b"junk" * 100, b"PAR1" + b"\0" * 64 + b"PAR1"], ids=len)
def test_a_file_that_is_no_table_is_corrupt(file: Path, content: bytes) -> None:
    file.write_bytes(content)
    with pytest.raises(CorruptArtifact, match=r"table\.parquet.*cannot be read: "):
        parquet.read(file, "items", [], Codec(file.parent))


def test_a_missing_file_and_one_that_others_wrote_are_corrupt(file: Path) -> None:
    with pytest.raises(CorruptArtifact, match="cannot be read: "):
        parquet.read(file, "items", [], Codec(file.parent))
    pyarrow.parquet.write_table(pyarrow.table({"x": [1]}), file)
    with pytest.raises(CorruptArtifact, match="cannot be read: "):
        parquet.read(file, "items", ["x"], Codec(file.parent))
