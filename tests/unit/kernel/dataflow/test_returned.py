from __future__ import annotations

from collections.abc import AsyncIterator, Generator, Iterator
from typing import Any, TypedDict

import pytest

from sage_core import Batch, Dataset, Keep, operator
from sage_core.common.errors import BadSignature
from sage_core.kernel.dataflow import signature, types
from sage_core.kernel.dataflow.graph import Signature


class Chunk(TypedDict):
    text: str
    start: int


def brief(found: Signature) -> str:
    """Shape and columns on one line."""
    return f"{found.shape} ({', '.join(f'{name}: {types.show(type_)}' for name, type_ in found.columns.items())})"


def test_bool_is_an_ordinary_column_and_only_keep_filters() -> None:
    @operator("t.spam", returns="is_spam")
    def spam(text: str) -> bool:
        return "!" in text

    @operator("t.short")
    def short(text: str, id: int, *, limit: int = 3) -> Keep:
        return Keep(len(text) < limit)

    assert brief(signature.of(spam)) == "map (is_spam: bool)"
    assert brief(signature.of(short)) == "filter (text: str, id: int)"


@pytest.mark.parametrize("kind", ["iterator", "generator", "async"])
def test_every_iterator_expands(kind: str) -> None:
    def iterator(text: str) -> Iterator[str]:
        return iter(text)

    def generator(text: str) -> Generator[str, None, None]:
        yield from text

    async def asynchronous(text: str) -> AsyncIterator[str]:
        for letter in text:
            yield letter

    function = {"iterator": iterator, "generator": generator, "async": asynchronous}[kind]
    found = signature.of(operator("t.letters", returns="letter")(function))
    assert brief(found) == "expand (letter: str)"
    assert found.is_async is (kind == "async")


def no_return(text: str):  # type: ignore[no-untyped-def]
    return 0


def unbatched(a: Batch[int]) -> int:
    return 0


def batch_from_rows(a: int) -> Batch[int]:
    return Batch()


async def async_iterator(a: int) -> Iterator[int]:
    return iter([a])


async def async_yield(a: int) -> Iterator[int]:  # type: ignore[misc]
    yield a


def yields(a: int) -> int:  # type: ignore[misc]
    yield a


def collect_keep(a: Dataset[int]) -> Keep:
    return Keep(True)


def collect_iterator(a: Dataset[int]) -> Iterator[int]:
    return iter(a)


def optional_record(a: int) -> Chunk | None:
    return None


def lonely_filter() -> Keep:
    return Keep(True)


REFUSED: list[tuple[Any, str, str]] = [
    (no_return, "the return annotation is missing", "`-> None`"),
    (unbatched, "the return annotation is int but the rows come as a Batch", "return Batch[T]"),
    (batch_from_rows, "is a batch but no parameter is", "take a Batch[T]"),
    (async_iterator, "an `async def` without `yield`", "AsyncIterator[T]"),
    (async_yield, "is no AsyncIterator", "`-> AsyncIterator[T]`"),
    (yields, "it yields", "`-> Iterator[T]`"),
    (collect_keep, "a collect cannot return Keep", "step of its own"),
    (collect_iterator, "a collect cannot return an Iterator", "list[T]"),
    (optional_record, "columns cannot be null all at once", "returns="),
    (lonely_filter, "a filter without ports", "take the columns"),
]


@pytest.mark.parametrize(("target", "problem", "help"), REFUSED, ids=[target.__name__ for target, *_ in REFUSED])
def test_refusals_say_what_to_write(target: Any, problem: str, help: str) -> None:
    with pytest.raises(BadSignature) as caught:
        signature.of(operator("t.bad")(target))
    text = str(caught.value)
    assert text.startswith("operator 't.bad': ")
    assert problem in text
    assert help in text.split("help: ")[1]
