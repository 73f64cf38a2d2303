from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import Any, Literal, NamedTuple, NotRequired, TypedDict

import msgspec
import numpy
import pytest

from sage_core import Artifact, Batch, Keep, Vector, Vectors
from sage_core.common.errors import UnsupportedType
from sage_core.kernel.dataflow import types
from sage_core.kernel.dataflow.graph import Type

#: mypy takes no integer where a type belongs.
FIXED: Any = Vector


@dataclass
class Page:
    text: str
    number: int = 0
    tags: list[str] = field(default_factory=list)


class Passage(TypedDict):
    text: str
    score: float


class Chunk(msgspec.Struct):
    text: str
    start: int | None = None


class Span(NamedTuple):
    start: int
    end: int


class Tree(TypedDict):
    children: list[Tree]


class Partial(TypedDict):
    text: NotRequired[str]


class Loose(TypedDict, total=False):
    text: str


class Text(TypedDict):
    text: str


class Index(Artifact):
    pass


class SmallIndex(Index):
    pass


class Colour(Enum):
    RED = "red"
    BLUE = "blue"


SHOWN = [
    (bool, "bool"),
    (int, "int"),
    (float, "float"),
    (str, "str"),
    (bytes, "bytes"),
    (None, "None"),
    (Any, "Any"),
    (Literal["a", 2, True], "Literal['a', 2, True]"),
    (Literal["a", None], "Literal['a'] | None"),
    (list[str], "list[str]"),
    (list, "list[Any]"),
    (dict[str, int | None], "dict[str, int | None]"),
    (str | None, "str | None"),
    (Vector, "Vector"),
    (FIXED[384], "Vector[384]"),
    (Vectors, "list[Vector]"),
    (Path, "path"),
    (Page, "Page"),
    (list[Passage], "list[Passage]"),
    (Index, "Index"),
]


@pytest.mark.parametrize(("annotation", "text"), SHOWN, ids=[text for _, text in SHOWN])
def test_annotations_are_read_and_shown(annotation: Any, text: str) -> None:
    assert types.show(types.of(annotation)) == text


@pytest.mark.parametrize(
    ("record", "names"), [(Page, "text number tags"), (Passage, "text score"), (Span, "start end")]
)
def test_records_of_each_kind_have_complete_fields(record: Any, names: str) -> None:
    type_ = types.of(record)
    assert type_.kind == "record"
    assert list(type_.fields) == names.split()


def test_a_struct_field_keeps_its_optional_type() -> None:
    assert types.of(Chunk).fields == {"text": Type(kind="str"), "start": Type(kind="int", optional=True)}


@pytest.mark.parametrize(
    ("annotation", "says"),
    [
        (int | str, "only `T | None` is a union"),
        (tuple[int, int], "write list[T], or a NamedTuple"),
        (set[str], "write list[T]"),
        (Colour, "write Literal['red', 'blue']"),
        (dict[int, str], "keys must be strings"),
        (Keep, "`-> Batch[Keep]`"),
        (list[Batch[int]], "whole parameter"),
        (Tree, "cannot contain itself"),
        (Partial, "write str | None"),
        (Loose, "write T | None"),
        (FIXED[0], "positive integer"),
        (object, "write Any"),
    ],
)
def test_other_annotations_say_what_to_write(annotation: Any, says: str) -> None:
    with pytest.raises(UnsupportedType) as caught:
        types.of(annotation)
    assert says in str(caught.value)


def test_a_bad_field_is_named_with_its_record() -> None:
    @dataclass
    class Odd:
        when: complex

    with pytest.raises(UnsupportedType, match=r"Odd\.when: complex"):
        types.of(Odd)


ASSIGNABLE: list[tuple[Any, Any, bool]] = [
    (int, int, True),
    (int, float, True),
    (float, int, False),
    (bool, int, False),
    (bool, float, False),
    (str, str | None, True),
    (str | None, str, False),
    (None, str | None, True),
    (None, str, False),
    (Any, str, True),
    (str | None, Any, True),
    (Path, str, True),
    (str, Path, True),
    (Literal["a"], Literal["a", "b"], True),
    (Literal["a", "c"], Literal["a", "b"], False),
    (Literal["a"], str, True),
    (Literal[1], bool, False),
    (Literal[1], Literal[True], False),
    (str, Literal["a"], False),
    (list[int], list[float], True),
    (list[str], list[int], False),
    (list[int], int, False),
    (Vector, list[float], False),
    (list[float], Vector, False),
    (FIXED[384], Vector, True),
    (Vector, FIXED[384], True),
    (FIXED[384], FIXED[768], False),
    (Passage, dict[str, Any], True),
    (Passage, dict[str, float], False),
    (dict[str, Any], Passage, False),
    (dict[str, int], dict[str, float], True),
    (SmallIndex, Index, True),
    (Index, SmallIndex, False),
    (Index, Artifact, True),
    (Index, str, False),
]


@pytest.mark.parametrize(("source", "target", "fits"), ASSIGNABLE)
def test_assignable(source: Any, target: Any, fits: bool) -> None:
    assert types.assignable(types.of(source), types.of(target)) is fits


def test_records_are_compared_by_structure_and_extra_fields_are_fine() -> None:
    assert types.assignable(types.of(Page), types.of(Text))
    assert not types.assignable(types.of(Text), types.of(Page))


VALUES: list[tuple[object, Any, str]] = [
    (3, int, ""),
    ("abc", int, "expected int, got 'abc'"),
    (True, int, "expected int, got True"),
    (1, bool, "expected bool, got 1"),
    (2, float, ""),
    (None, str | None, ""),
    (None, str, "expected str, got None"),
    (None, Any, ""),
    (Path("a"), Path, ""),
    ("a", Path, ""),
    (Path("a"), str, f"expected str, got {Path('a')!r}"),
    ("x", Literal["a", "b"], "expected Literal['a', 'b'], got 'x'"),
    (1, Literal[True], "expected Literal[True], got 1"),
    (["a", 1], list[str], "item 1: expected str, got 1"),
    ({"a": 1}, dict[str, int], ""),
    ({"a": "b"}, dict[str, int], "field 'a': expected int, got 'b'"),
    ({1: 2}, dict[str, int], "expected dict[str, int], got {1: 2}"),
    (Page("a"), Page, ""),
    ({"text": "a", "score": 1}, Passage, ""),
    ({"text": "a"}, Passage, "expected Passage with fields text, score; got one without score"),
    (
        {"text": "a", "scores": 1.0},
        Passage,
        "expected Passage with fields text, score; got one without score and with scores",
    ),
    ({"text": "a", "score": "b"}, Passage, "field 'score': expected float, got 'b'"),
    (Span(1, 2), Span, ""),
    ((1, 2), Span, "expected Span, got (1, 2)"),
    (numpy.zeros(3, numpy.float32), Vector, ""),
    (numpy.zeros(3, numpy.float32), FIXED[4], "expected Vector[4], got a float32 array of shape (3,)"),
    (numpy.zeros(3), Vector, "expected Vector, got a float64 array of shape (3,)"),
    ([0.5], Vector, "expected Vector, got [0.5]"),
    (numpy.zeros((2, 3), numpy.float32), list[FIXED[3]], ""),
    (
        numpy.zeros((2, 3), numpy.float32),
        list[FIXED[4]],
        "expected list[Vector[4]], got a float32 array of shape (2, 3)",
    ),
    (SmallIndex(Path(), "d"), Index, ""),
    (Index(Path(), "d"), SmallIndex, "expected SmallIndex, got"),
]


@pytest.mark.parametrize(("value", "annotation", "problem"), VALUES)
def test_value_problem(value: object, annotation: Any, problem: str) -> None:
    found = types.value_problem(value, types.of(annotation))
    assert found == problem if not problem.endswith("got") else found.startswith(problem)


def test_a_long_value_is_cut() -> None:
    assert len(types.value_problem("x" * 1000, types.of(int))) < 120


def test_types_are_encodable_and_come_back_equal() -> None:
    for annotation, _ in SHOWN:
        type_ = types.of(annotation)
        assert msgspec.json.decode(msgspec.json.encode(type_), type=Type) == type_
