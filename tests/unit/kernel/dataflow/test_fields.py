from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, NamedTuple, TypedDict

import msgspec
import pytest

from sage_core import Keep, RowError
from sage_core.kernel.dataflow import fields


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
    start: int = 0


class Keyword(msgspec.Struct, kw_only=True):
    start: int = 0
    text: str
    end: int = 0


class Span(NamedTuple):
    start: int
    end: int = 0


RECORDS = [
    (Page, "text number tags", "number tags"),
    (Passage, "text score", ""),
    (Chunk, "text start", "start"),
    (Keyword, "start text end", "start end"),
    (Span, "start end", "end"),
]


@pytest.mark.parametrize(("record", "names", "defaulted"), RECORDS, ids=[record.__name__ for record, *_ in RECORDS])
def test_each_kind_of_record_says_its_fields_and_which_may_be_left_out(record: Any, names: str, defaulted: str) -> None:
    assert fields.is_record(record)
    assert fields.names(record) == tuple(names.split())
    assert fields.defaulted(record) == frozenset(defaulted.split())


@pytest.mark.parametrize("other", [str, dict, tuple, Keep, RowError, Page("a"), list[Page], None])
def test_nothing_else_is_a_record(other: object) -> None:
    assert not fields.is_record(other)


def test_values_are_read_from_instances_that_are_no_dict() -> None:
    assert fields.values(Page("a", 2)) == {"text": "a", "number": 2, "tags": []}
    assert fields.values(Span(1)) == {"start": 1, "end": 0}
    assert fields.values(Chunk("a")) == {"text": "a", "start": 0}
    assert fields.values({"text": "a"}) is None
    assert fields.values((1, 2)) is None
