"""Operators of the suites' workflows: judged questions, names of ranked documents, and rows that cost nothing."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec

from sage_bench.collection import read_questions
from sage_core import Dataset, operator


class Judged(msgspec.Struct, frozen=True, kw_only=True):
    """A question with what is known to answer it."""

    id: str
    text: str
    relevant: list[str]
    #: Acceptable answers; none where the collection judges documents only.
    gold: list[str]


@operator("bench.questions", pure=False, paths=("path",))
def questions(*, path: str, sample: int = 0, seed: int = 0) -> Iterator[Judged]:
    """Read the questions of a collection's folder, all or a seeded sample, in the order of the file."""
    for question in read_questions(path, sample=sample, seed=seed):
        yield Judged(id=question.id, text=question.text, relevant=list(question.relevant), gold=list(question.gold))


@operator("bench.ranked", returns="documents")
def ranked(passages: list[Any]) -> list[str]:
    """Names of the documents behind the passages, each once, at its best passage."""
    return list(dict.fromkeys(str(passage["path"]).rpartition("#")[2] for passage in passages))


@operator("bench.numbers")
def numbers(*, count: int, start: int = 0) -> Iterator[int]:
    """Count: the cheapest rows there are."""
    yield from range(start, start + count)


@operator("bench.same")
def same(value: int) -> int:
    """Return what came in, so that whatever a step costs beside this call is SAGE's."""
    return value


@operator("bench.total")
def total(value: Dataset[int]) -> int:
    """Add up, so that a run cannot skip a row unnoticed."""
    return sum(value)
