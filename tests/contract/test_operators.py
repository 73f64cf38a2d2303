"""Operators: two of different shapes pass the suite, wrong ones are found out."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import msgspec
import pytest

from sage_core import Batch, Dataset, operator
from sage_core.testing import Example, OperatorContract
from tests.contract.suites import assert_fails


@operator("text.shout")
def shout(text: str, *, mark: str = "!") -> str:
    return text.upper() + mark


class TestShout(OperatorContract):
    operator = shout
    examples = (
        Example(inputs={"text": "a"}, result="A!"),
        Example(inputs={"text": "a", "mark": "?"}, result="A?"),
    )


@operator("text.words")
def words(text: str) -> Iterator[str]:
    yield from text.split()


class TestWords(OperatorContract):
    operator = words
    examples = (Example(inputs={"text": "to be"}, result=["to", "be"]),)


@operator("text.letters")
async def letters(text: str) -> AsyncIterator[str]:
    for letter in text:
        yield letter


class TestLetters(OperatorContract):
    operator = letters
    examples = (Example(inputs={"text": "ab"}, result=["a", "b"]),)


@operator("text.length", returns="length")
async def length(text: Batch[str]) -> Batch[int]:
    return Batch(len(each) for each in text)


class TestLength(OperatorContract):
    operator = length
    examples = (Example(inputs={"text": Batch(["a", "bcd"])}, result=[1, 3]),)


@operator("text.total", returns="total")
def total(length: Dataset[int]) -> int:
    return sum(length)


class TestTotal(OperatorContract):
    operator = total
    examples = (Example(inputs={"length": Dataset([1, 3])}, result=4),)


@operator("text.repeat")
class Repeat:
    def __init__(self, *, times: int = 2) -> None:
        self.times = times

    def __call__(self, text: str) -> str:
        return text * self.times


class TestRepeat(OperatorContract):
    operator = Repeat
    examples = (Example(inputs={"text": "ab", "times": 3}, result="ababab"),)


class Line(msgspec.Struct):
    text: str


@operator("text.longest", returns="longest")
class Longest:
    """A fold."""

    def __init__(self, *, least: int = 0) -> None:
        self.best = ""
        self.least = least

    def add(self, lines: Batch[Line]) -> None:
        for line in lines:
            if len(line.text) > max(len(self.best), self.least - 1):
                self.best = line.text

    def finish(self) -> str:
        return self.best


class TestLongest(OperatorContract):
    operator = Longest
    examples = (
        Example(inputs={"lines": [Line("a"), Line("bcd")]}, result="bcd"),
        Example(inputs={"lines": Dataset([Line("a")]), "least": 2}, result=""),
    )


def unmarked(text: str) -> str:
    return text


@operator("shout")
def undotted(text: str) -> str:
    return text


@operator("text.untyped")
def untyped(text):  # type: ignore[no-untyped-def]
    return text


@operator("text.halved")
def halved(text: Batch[str]) -> Batch[str]:
    return Batch(text[::2])


def counter() -> Callable[..., Any]:
    calls = iter(range(100))

    @operator("text.numbered")
    def numbered(text: str) -> str:
        return f"{next(calls)} {text}"

    return numbered


@pytest.mark.parametrize(
    ("wrong", "test", "message"),
    [
        (unmarked, "test_it_is_marked_with_a_dotted_name", "not marked"),
        (undotted, "test_it_is_marked_with_a_dotted_name", "not namespace.name"),
        (untyped, "test_its_signature_can_be_read", "text"),
        (shout, "test_its_examples_hold", "not 'a'"),
        (halved, "test_a_batch_keeps_its_length", "2 rows in, 1 out"),
        (counter(), "test_a_pure_operator_repeats_itself", "two results"),
    ],
)
def test_a_wrong_operator_fails(wrong: Callable[..., object], test: str, message: str) -> None:
    value: object = Batch(["a", "b"]) if wrong is halved else "a"
    examples = (Example(inputs={"text": value}, result="a"),)
    assert_fails(OperatorContract, test, message, operator=wrong, examples=examples)


def test_a_suite_without_examples_fails() -> None:
    assert_fails(OperatorContract, "test_its_examples_hold", "at least one Example", operator=shout)
