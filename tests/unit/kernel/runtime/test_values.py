from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import msgspec
import numpy
import pytest

from sage_core.common.operators import Artifact
from sage_core.kernel.runtime.values import Codec, digest, plain


class Book(Artifact):
    pass


@dataclass
class Inner:
    path: Path


class Outer(msgspec.Struct):
    inner: Inner
    many: list[Inner]


class Point(NamedTuple):
    x: int


def test_values_come_back_as_they_were(tmp_path: Path) -> None:
    codec = Codec(tmp_path)
    value = {"a": [1, 2.5, None, "ä", b"\x00", True], "deep": {"list": [[]]}}
    assert codec.decode(codec.encode(value)) == value
    array = numpy.arange(6, dtype=numpy.float32).reshape(2, 3)
    back = codec.decode(codec.encode(array))
    assert back.dtype == numpy.float32
    assert back.tolist() == array.tolist()


def test_numbers_of_numpy_are_numbers(tmp_path: Path) -> None:
    codec = Codec(tmp_path)
    assert codec.decode(codec.encode([numpy.float32(0.5), numpy.int64(7), numpy.bool_(True)])) == [0.5, 7, True]


def test_an_artifact_is_its_class_and_digest_wherever_the_store_lies(tmp_path: Path) -> None:
    written = Codec(tmp_path / "one").encode(Book(tmp_path / "one" / "ab" / "abcd", "abcd"))
    book = Codec(tmp_path / "two").decode(written)
    assert isinstance(book, Book)
    assert (book.path, book.digest) == (tmp_path / "two" / "ab" / "abcd", "abcd")
    assert str(tmp_path).encode() not in written


def test_what_cannot_be_kept_is_named(tmp_path: Path) -> None:
    with pytest.raises(TypeError, match="a value of type object cannot be kept"):
        Codec(tmp_path).encode(object())


def test_records_become_dictionaries_at_any_depth() -> None:
    outer = Outer(inner=Inner(Path("a")), many=[Inner(Path("b"))])
    assert plain(outer) == {"inner": {"path": "a"}, "many": [{"path": "b"}]}
    assert plain((Point(1), {"p": Point(2)})) == [{"x": 1}, {"p": {"x": 2}}]


def test_a_digest_knows_where_its_parts_end() -> None:
    assert digest("ab", "c") != digest("a", "bc")
    assert digest("a", b"b") == digest(b"a", "b")
    assert len(digest()) == 32
