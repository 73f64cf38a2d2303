"""What flows between retrieval steps: files, documents, chunks and passages."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from sage_core import SageError, Vector


class SourceFile(msgspec.Struct, frozen=True, kw_only=True):
    """A document's place and the digest of its content, so that whoever reads it is keyed by what it holds."""

    #: Path of the file; ``FILE.jsonl#ID`` names one line of a JSONL file.
    path: str
    digest: str


class Document(msgspec.Struct, frozen=True, kw_only=True):
    """A parsed document."""

    text: str
    title: str


class Chunk(msgspec.Struct, frozen=True, kw_only=True):
    """A piece of a text: ``text == whole[start:end]``, counted in characters."""

    text: str
    start: int
    end: int


class Entry(msgspec.Struct, frozen=True, kw_only=True):
    """One passage to index; without a place it is taken for the whole document."""

    vector: Vector
    text: str
    path: str
    start: int | None = None
    end: int | None = None


class Passage(msgspec.Struct, frozen=True, kw_only=True):
    """A quotable piece of a document with its place and how well it fits the question."""

    path: str
    start: int
    end: int
    text: str
    score: float = 0.0


class DocumentError(SageError, ValueError):
    """A document cannot be used; the step's `on_error` decides whether that is fatal."""

    def __init__(self, path: str, problem: str, help: str = "") -> None:
        super().__init__(path, problem, help)

    def __str__(self) -> str:
        path, problem, help = self.args
        return f"{path}: {problem}" + (f"\n  help: {help}" if help else "")


def as_passages(value: Sequence[Any]) -> list[Passage]:
    """Accept passages as records or as the plain dicts that a stored or hand-written column holds."""
    return msgspec.convert(list(value), list[Passage], from_attributes=True)
