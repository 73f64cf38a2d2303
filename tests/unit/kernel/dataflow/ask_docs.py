"""Operators with the signatures of the first example, which make nothing: for tests that build and check graphs."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TypedDict

from sage_core import Artifact, ArtifactDir, Batch, Context, Dataset, Keep, Vector, hookimpl, operator


class File(TypedDict):
    path: str
    digest: str


class Page(TypedDict):
    text: str
    title: str


class Chunk(TypedDict):
    text: str
    start: int
    end: int


class Passage(TypedDict):
    path: str
    text: str


class Index(Artifact):
    pass


@operator("rag.files", pure=False, paths=["path"])
def files(*, path: str) -> Iterator[File]:
    yield {"path": path, "digest": ""}


@operator("rag.parse")
def parse(file: File) -> Page:
    return {"text": file["path"], "title": ""}


@operator("rag.chunk")
def chunk(text: str, *, size: int = 256, overlap: int = 32) -> Iterator[Chunk]:
    yield {"text": text, "start": 0, "end": size - overlap}


@operator("llm.embed", returns="vector", models=["model"])
async def embed(text: Batch[str], *, model: str, ctx: Context) -> Batch[Vector]:
    return Batch()


class Entry(TypedDict):
    vector: Vector
    text: str
    path: str
    start: int
    end: int


@operator("rag.index", returns="index")
class Build:
    def add(self, rows: Batch[Entry]) -> None: ...

    def finish(self, out: ArtifactDir) -> Index:
        return out.publish(Index)


@operator("rag.retrieve", returns="passages")
def retrieve(vector: Vector, query: str, index: Index, *, k: int = 5) -> list[Passage]:
    return []


@operator("t.short")
def short(text: str, *, limit: int = 100) -> Keep:
    return Keep(len(text) < limit)


@operator("t.length", returns="length")
def length(text: str) -> int:
    return len(text)


@operator("t.mean", returns="mean")
def mean(length: Dataset[int]) -> float:
    return sum(length) / len(length)


@operator("t.write")
def write(text: str) -> None: ...


@operator("t.local", returns="loud")
def shout(text: str) -> str:
    return text.upper()


class Onnx:
    """Named by models; never opened here."""

    def identify(self, model: object) -> str:
        return ""

    def open(self, model: object) -> None: ...


class Plugin:
    @hookimpl
    def sage_operators(self) -> dict[str, str]:
        here = {
            "rag.files": "files",
            "rag.parse": "parse",
            "rag.chunk": "chunk",
            "llm.embed": "embed",
            "rag.index": "Build",
            "rag.retrieve": "retrieve",
            "t.short": "short",
            "t.length": "length",
            "t.mean": "mean",
            "t.write": "write",
        }
        return {name: f"{__name__}:{attribute}" for name, attribute in here.items()}

    @hookimpl
    def sage_backends(self) -> dict[str, str]:
        return {"onnx": f"{__name__}:Onnx"}
