"""Operators of the workflows that tests run through the command line."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TypedDict

from sage_core import Context, hookimpl, operator


class Passage(TypedDict):
    path: str
    start: int
    end: int
    text: str


@operator("t.lines", returns="line")
def lines(*, n: int = 3) -> Iterator[str]:
    yield from (f"line {number}" for number in range(n))


@operator("t.upper", returns="text")
def upper(line: str) -> str:
    return line.upper()


@operator("t.fail", returns="text")
def fail(line: str, *, but: str = "") -> str:
    if but and but in line:
        return line
    raise ValueError(f"cannot take {line!r}")


@operator("t.gate", returns="text")
def gate(line: str, *, key: Path) -> str:
    """Fails until the file `key` exists."""
    if not key.exists():
        raise ValueError("the gate is closed")
    return line


@operator("t.pid", returns="pid", pure=False)
def pid(line: str) -> int:
    return os.getpid()


@operator("t.find", returns="passages")
def find(question: str) -> list[Passage]:
    if question == "nothing":
        return []
    return [
        {"path": "a.md", "start": 3, "end": 9, "text": "first\n\nlines\n"},
        {"path": "b.md", "start": 0, "end": 4, "text": "more"},
    ]


@operator("t.silence", returns="text")
def silence(question: str) -> str:
    return "The documents do not say."


@operator("t.say", returns="text", pure=False, models=("model",))
async def say(question: str, *, model: str, ctx: Context) -> str:
    messages = [{"role": "user", "content": question}]
    return " ".join([token.text async for token in ctx.client.generate(model, messages) if token.text])


@hookimpl
def sage_operators() -> Mapping[str, str]:
    names = ("lines", "upper", "fail", "gate", "pid", "find", "silence", "say")
    return {f"t.{name}": f"{__name__}:{name}" for name in names}
