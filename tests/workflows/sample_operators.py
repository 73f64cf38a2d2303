"""Small operators and a plugin that names them, for workflows in tests."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from sage_core import Artifact, Batch, Context, Dataset, Host, Keep, Vector, hookimpl, operator


@dataclass
class File:
    path: str
    digest: str


@dataclass
class Page:
    text: str
    title: str | None


@dataclass
class Chunk:
    text: str
    start: int
    end: int


@dataclass
class Score:
    value: float
    label: Literal["good", "bad"]


@dataclass
class Draft:
    state: str
    done: bool


class Index(Artifact):
    pass


@operator("t.files", paths=["path"])
def files(*, path: str) -> Iterator[File]:
    yield File(path, "")


@operator("t.parse")
def parse(file: File) -> Page:
    return Page("", None)


@operator("t.chunk")
def chunk(text: str, *, size: int = 256, overlap: int = 32) -> Iterator[Chunk]:
    yield Chunk(text[:size], 0, overlap)


@operator("t.embed", returns="vector", models=["model"])
def embed(text: Batch[str], *, model: str) -> Batch[Vector]:
    raise NotImplementedError


@operator("t.near", returns="near")
def near(vector: Batch[Vector], query: Vector) -> Batch[bool]:
    return Batch()


@operator("t.index", returns="index")
def index(vector: Dataset[Vector], text: Dataset[str], name: str = "") -> Index:
    raise NotImplementedError


@operator("t.count", returns="n")
def count(item: Dataset[Any]) -> int:
    return len(item)


@operator("t.short")
def short(text: str, *, limit: int = 100) -> Keep:
    return Keep(len(text) < limit)


@operator("t.score")
def score(text: str, weight: float = 1.0, *, mode: Literal["fast", "slow"] = "fast") -> Score:
    return Score(weight, "good")


@operator("t.upper", returns="text")
def upper(text: str) -> str:
    return text.upper()


@operator("t.lines", returns="lines")
def lines(file: Path) -> list[str]:
    return file.read_text().splitlines()


@operator("t.title", returns="text")
def title(text: str | None) -> str:
    return text or ""


@operator("t.tags", returns="tags")
def tags(text: str, *, names: list[str], opts: dict[str, Any] | None = None) -> list[str]:
    return names


@operator("t.note")
def note(text: str, *, ctx: Context) -> None:
    ctx.warn(text)


@operator("t.refine")
def refine(state: str) -> Draft:
    return Draft(state, True)


@dataclass
class Customer:
    id: int
    region: str


@dataclass
class Order:
    customer: int
    total: float
    day: str


@operator("t.people")
def people(*, source: Path) -> Iterator[Customer]:
    yield Customer(1, "")


@operator("t.orders")
def orders(*, source: Path) -> Iterator[Order]:
    yield Order(1, 1.0, "")


@operator("t.greet", returns="text")
def greet(region: str | None, total: float) -> str:
    return f"{region} {total}"


class Null:
    def identify(self, model: Any) -> str:
        return ""

    def open(self, model: Any) -> Any:
        raise NotImplementedError


_NAMES = [
    "files", "parse", "chunk", "embed", "near", "index", "count", "short", "score", "upper", "title", "tags", "note",
    "refine", "lines", "people", "orders", "greet",
]  # fmt: skip


class Plugin:
    @hookimpl
    def sage_operators(self) -> Mapping[str, str]:
        here = {f"t.{name}": f"{__name__}:{name}" for name in _NAMES}
        return {**here, "t.broken": "module_that_is_not_there:x", "t.untyped": f"{__name__}:untyped"}

    @hookimpl
    def sage_backends(self) -> Mapping[str, str]:
        return {"null": f"{__name__}:Null"}


@operator("t.untyped")
def untyped(text):  # type: ignore[no-untyped-def]
    return text


def host() -> Host:
    return Host({"samples": Plugin()})
