"""Operators for workflows that tests run for real, in this process and in workers."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator, Iterator, Mapping
from pathlib import Path
from typing import Any

from sage_core import (
    Artifact,
    ArtifactDir,
    Batch,
    Context,
    Dataset,
    Keep,
    Vector,
    Vectors,
    hookimpl,
    operator,
)
from tests.unit.kernel.runtime import frail_operators
from tests.unit.kernel.runtime.flow_records import Draft as Draft
from tests.unit.kernel.runtime.flow_records import Entry, Item, note
from tests.unit.kernel.runtime.flow_records import Letter as Letter
from tests.unit.kernel.runtime.flow_records import Pair as Pair
from tests.unit.kernel.runtime.flow_records import Word as Word


@operator("f.items")
def items(*, texts: list[str]) -> Iterator[Item]:
    for number, text in enumerate(texts):
        yield Item(number, text, text.partition(" ")[0] or None)


@operator("f.world", pure=False)
def world(*, texts: list[str]) -> Iterator[Item]:
    yield from items(texts=texts)


@operator("f.split")
def split(text: str, *, log: str = "") -> Iterator[Word]:
    note(log, text)
    for at, word in enumerate(text.split()):
        yield Word(word, at)


@operator("f.split_async")
async def split_async(text: str) -> AsyncIterator[Word]:
    for at, word in enumerate(text.split()):
        await asyncio.sleep(0)
        yield Word(word, at)


@operator("f.letters")
def letters(word: str) -> Iterator[Letter]:
    for letter in word:
        yield Letter(letter)


@operator("f.upper", returns="text")
def upper(text: str, *, log: str = "") -> str:
    note(log, text)
    return text.upper()


@operator("f.upper_many", returns="text")
def upper_many(text: Batch[str], *, log: str = "") -> Batch[str]:
    note(log, str(len(text)))
    return Batch(one.upper() for one in text)


@operator("f.upper_later", returns="text")
async def upper_later(text: str) -> str:
    # The longer a text, the earlier it is done: results come back out of order.
    await asyncio.sleep(0.002 / (1 + len(text)))
    return text.upper()


@operator("f.ident", returns="id")
def ident(id: int, *, log: str = "") -> int:
    note(log, str(id))
    return id


@operator("f.short")
def short(text: str, *, limit: int = 3) -> Keep:
    return Keep(len(text) < limit)


@operator("f.pair")
def pair(left: str, right: str | None) -> Pair:
    return Pair(left, right)


@operator("f.nothing", returns="text")
def nothing(text: str) -> str | None:
    return None if text == "null" else text


@operator("f.join", returns="text")
def join(text: Dataset[str], *, log: str = "") -> str:
    note(log, ",".join(text))
    return ",".join(text)


@operator("f.count", returns="n")
def count(item: Dataset[Any]) -> int:
    return len(item)


@operator("f.labelled", returns="text")
def labelled(text: Dataset[str], label: str) -> str:
    return f"{label}:{','.join(text)}"


@operator("f.tally")
class Tally:
    """A fold of records, in pieces."""

    def __init__(self, *, sep: str = ",") -> None:
        self._sep = sep
        self._seen: list[str] = []

    def add(self, rows: Batch[Entry]) -> None:
        self._seen += [f"{row.id}{row.text}" for row in rows]

    def finish(self) -> str:
        return self._sep.join(self._seen)


@operator("f.tally_later", returns="text")
class TallyLater:
    """A fold whose methods are coroutines."""

    def __init__(self) -> None:
        self._seen: list[str] = []

    async def add(self, text: Batch[str]) -> None:
        await asyncio.sleep(0)
        self._seen += text

    async def finish(self) -> str:
        await asyncio.sleep(0)
        return ",".join(self._seen)


class Book(Artifact):
    """A folder with one text file."""


@operator("f.book", returns="book")
class MakeBook:
    """A fold to an artifact."""

    def __init__(self) -> None:
        self._lines: list[str] = []

    def add(self, text: Batch[str]) -> None:
        self._lines += text

    def finish(self, out: ArtifactDir) -> Book:
        (out.path / "book.txt").write_text("\n".join(self._lines), encoding="utf-8")
        return out.publish(Book)


@operator("f.read", returns="found")
def read(book: Book, text: str, *, ctx: Context) -> bool:
    lines = ctx.open_once(book, _lines)
    return text in lines


def _lines(folder: Path) -> list[str]:
    return (folder / "book.txt").read_text(encoding="utf-8").splitlines()


@operator("f.embed", returns="vector")
def embed(text: Batch[str], *, log: str = "") -> Batch[Vector]:
    import numpy

    note(log, str(len(text)))
    return Batch(numpy.array([len(one), sum(map(ord, one)), 1.0], dtype=numpy.float32) for one in text)


@operator("f.embed_memo", returns="vector", memo=True)
def embed_memo(text: Batch[str], *, log: str = "") -> Batch[Vector]:
    return embed(text, log=log)


@operator("f.upper_memo", returns="text", memo=True)
def upper_memo(text: str, *, log: str = "") -> str:
    return upper(text, log=log)


@operator("f.near", returns="near")
def near(vector: Vectors, query: Vector) -> Batch[float]:
    return Batch(float(one) for one in vector @ query)


@operator("f.ask", returns="text", models=("model",))
def ask(text: str, *, model: str) -> str:
    return f"{model}: {text}"


@operator("f.norm", returns="norm")
def norm(vector: Vector) -> float:
    return float(vector @ vector)


@operator("f.grow")
def grow(state: str) -> Draft:
    return {"state": state + "x", "done": len(state) >= 3}


@operator("f.clock", returns="at", pure=False)
def clock(text: str, *, log: str = "") -> int:
    note(log, text)
    return time.time_ns()


@operator("f.whole", returns="text")
def whole(item: Item) -> str:
    return f"{type(item).__name__} {item.id} {item.text}"


@operator("f.whole_dict", returns="text")
def whole_dict(item: dict[str, Any]) -> str:
    return " ".join(item)


@operator("f.scale", returns="value")
def scale(text: str, *, by: int = 1, sign: str = "+") -> str:
    return f"{text}{sign}{by}"


@operator("f.words", returns="text")
def words(text: str, *, by: int = 1) -> Iterator[str]:
    for word in text.split():
        yield f"{word}{by}"


@operator("f.sink")
def sink(text: str, *, log: str) -> None:
    note(log, text)


@operator("f.leak", returns="text")
def leak(text: str, *, token: str, ctx: Context) -> str:
    ctx.warn(f"warned with {token}")
    if text == "tell":
        raise ValueError(f"denied for {token}")
    return f"{text} {len(token)}"


@operator("f.warns", returns="text")
def warns(text: str, *, ctx: Context) -> str:
    ctx.warn(f"saw {text}")
    return text


@operator("f.pid", returns="pid", pure=False)
def pid(text: str) -> int:
    return os.getpid()


@operator("f.place", returns="text")
def place(text: str, *, folder: Path) -> str:
    return f"{type(folder).__name__.removeprefix('Posix')} {folder.name} {text}"


@operator("f.held", returns="text")
class Held:
    """Holds something open."""

    def __init__(self, *, prefix: str, log: str) -> None:
        self._prefix, self._log = prefix, log
        note(log, "open")

    def __call__(self, text: str, *, suffix: str = "") -> str:
        return self._prefix + text + suffix

    def close(self) -> None:
        note(self._log, "close")


@hookimpl
def sage_operators() -> Mapping[str, str]:
    from sage_core.common.operators import MARK

    offered = {**vars(frail_operators), **globals()}
    return {
        getattr(target, MARK).name: f"{target.__module__}:{name}"
        for name, target in offered.items()
        if getattr(target, MARK, None) is not None
    }
