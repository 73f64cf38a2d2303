"""A client and a context that run without an engine: vectors by hashed words, tokens by words."""

from __future__ import annotations

import hashlib
import re
import zlib
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

import numpy as np
import numpy.typing as npt
import pytest

from sage_core import Artifact, EngineInfo, Token

T = TypeVar("T")


class WordClient:
    """Embeds a text as the normalised counts of its hashed words; reranks by shared words; tokenizes by words."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, str, int]] = []

    async def embed(self, model: str, texts: Sequence[str]) -> npt.NDArray[np.float32]:
        self.calls.append(("embed", model, len(texts)))
        return np.stack([vector_of(text) for text in texts])

    async def rerank(self, model: str, query: str, documents: Sequence[str]) -> list[float]:
        self.calls.append(("rerank", model, len(documents)))
        wanted = set(query.split())
        return [float(len(wanted & set(document.split()))) for document in documents]

    async def tokenize(self, model: str, texts: Sequence[str]) -> list[list[tuple[int, int]]]:
        self.calls.append(("tokenize", model, len(texts)))
        return [[match.span() for match in re.finditer(r"\S+", text)] for text in texts]

    async def generate(
        self,
        model: str,
        messages: Sequence[Mapping[str, str]],
        *,
        max_tokens: int = 256,
        temperature: float = 0.0,
        stop: Sequence[str] = (),
        seed: int | None = None,
        schema: Mapping[str, object] | None = None,
    ) -> AsyncIterator[Token]:
        self.calls.append(("generate", model, len(messages)))
        yield Token(text="yes", finish="stop", completion_tokens=1)

    async def info(self, model: str) -> EngineInfo:
        raise NotImplementedError("no retrieval operator asks what serves a model")


class TempDir:
    """An artifact directory; its digest is over names and bytes of the files."""

    def __init__(self, path: Path) -> None:
        path.mkdir()
        self.path = path

    def publish(self, kind: type[T]) -> T:
        digest = hashlib.sha256()
        for file in sorted(self.path.iterdir()):
            digest.update(file.name.encode() + b"\0" + hashlib.sha256(file.read_bytes()).digest())
        assert issubclass(kind, Artifact)
        return kind(self.path, digest.hexdigest())


class TestContext:
    """What an operator may ask of SAGE, over a temporary folder."""

    __test__ = False

    def __init__(self, folder: Path) -> None:
        self.run_id = "r1"
        self.step = "step"
        self.client = WordClient()
        self.base = folder
        self.warnings: list[str] = []
        self.loads = 0
        self._opened: dict[str, object] = {}
        self._made = 0

    def new_artifact(self) -> TempDir:
        self._made += 1
        return TempDir(self.base / f".artifact{self._made}")

    def open_once(self, artifact: Artifact, load: Callable[[Path], T]) -> T:
        if artifact.digest not in self._opened:
            self.loads += 1
            self._opened[artifact.digest] = load(artifact.path)
        return self._opened[artifact.digest]  # type: ignore[return-value]

    def digest_files(self, paths: Sequence[Path]) -> list[str]:
        return [hashlib.sha256(path.read_bytes()).hexdigest() for path in paths]

    def warn(self, message: str) -> None:
        self.warnings.append(message)


def vector_of(text: str, dimension: int = 64) -> npt.NDArray[np.float32]:
    """The client's vector of a text."""
    vector = np.zeros(dimension, np.float32)
    for word in re.findall(r"\w+", text.lower()):
        vector[zlib.crc32(word.encode()) % dimension] += 1
    length = np.linalg.norm(vector)
    return (vector / length if length else vector).astype(np.float32)


@pytest.fixture
def ctx(tmp_path: Path) -> TestContext:
    return TestContext(tmp_path)


@pytest.fixture
def embedding() -> Callable[[str], npt.NDArray[np.float32]]:
    return vector_of
