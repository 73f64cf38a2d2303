from __future__ import annotations

import functools
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pytest

from sage_core import Context, operator
from sage_core.common.errors import BadSignature
from sage_core.kernel.dataflow import signature
from sage_core.kernel.dataflow.calls import ABSENT, take_apart

if TYPE_CHECKING:
    from decimal import Decimal


async def sample(text: str, weight: float = 1.0, *, size: int = 3, model: str, ctx: Context) -> list[int]:
    return []


def test_a_function_is_taken_apart_into_ports_options_and_context() -> None:
    call = take_apart("t.sample", sample)
    assert [(port.name, port.annotation, port.default) for port in call.ports] == [
        ("text", str, ABSENT),
        ("weight", float, 1.0),
    ]
    assert [(option.name, option.default) for option in call.options] == [("size", 3), ("model", ABSENT)]
    assert (call.returns, call.colour, call.is_async, call.wants_context) == (list[int], "coroutine", True, True)


def test_a_method_is_read_without_its_self() -> None:
    class Sample:
        def add(self, text: str) -> None: ...

    call = take_apart("t.sample", Sample.add, "add")
    assert [port.name for port in call.ports] == ["text"]
    assert call.named("text") == "parameter 'text' of add"


def test_a_wrapped_function_is_read_through() -> None:
    def twice(function: Callable[..., str]) -> Callable[..., str]:
        @functools.wraps(function)
        def wrapper(*args: Any, **options: Any) -> str:
            return function(*args, **options) * 2

        return wrapper

    @operator("t.upper")
    @twice
    def upper(text: str, *, end: str = "") -> str:
        return text.upper() + end

    found = signature.of(upper)
    assert ([port.name for port in found.ports], [option.name for option in found.options]) == (["text"], ["end"])
    assert upper("a") == "AA"


def args(*texts: str) -> int:
    return 0


def kwargs(text: str, **rest: str) -> int:
    return 0


def bare(text) -> int:  # type: ignore[no-untyped-def]
    return 0


def type_checking(amount: Decimal) -> int:
    return 0


def positional_context(ctx: Context) -> int:
    return 0


REFUSED: list[tuple[Any, str, str]] = [
    (args, "*texts cannot be wired", "write each port as a positional parameter"),
    (kwargs, "**rest cannot be wired", "each option after a `*`"),
    (bare, "parameter 'text' has no annotation", "write `text: T`"),
    (type_checking, "parameter 'amount': the name 'Decimal' in `Decimal` is unknown", "outside `if TYPE_CHECKING:`"),
    (positional_context, "'ctx' is positional", "`*, ctx: Context`"),
    (len, "is no Python function", "wrap it"),
]


@pytest.mark.parametrize(("target", "problem", "help"), REFUSED, ids=[target.__name__ for target, *_ in REFUSED])
def test_refusals_say_what_to_write(target: Any, problem: str, help: str) -> None:
    with pytest.raises(BadSignature) as caught:
        take_apart("t.bad", target)
    text = str(caught.value)
    assert text.startswith("operator 't.bad': ")
    assert problem in text
    assert help in text.split("help: ")[1]


def test_an_annotation_that_cannot_be_evaluated_is_named() -> None:
    def odd(text: str, size: int) -> int:
        return size

    odd.__annotations__["size"] = "int.nothing"
    with pytest.raises(
        BadSignature, match=r"parameter 'size': `int\.nothing` cannot be evaluated.*no attribute 'nothing'"
    ):
        take_apart("t.bad", odd)
