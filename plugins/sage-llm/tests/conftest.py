"""A client that answers from a script and records what it was asked."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
import pytest

from sage_core import Artifact, ArtifactDir, EngineInfo, Token

T = TypeVar("T")


class ScriptedClient:
    """Streams its answers in order, a word at a time; embeds a text as its length and its first letter."""

    def __init__(self) -> None:
        self.answers: list[str] = []
        #: False: streams end without their last token, as when an engine dies.
        self.finishes = True
        self.asked: list[dict[str, Any]] = []

    async def embed(self, model: str, texts: Sequence[str]) -> npt.NDArray[np.float32]:
        self.asked.append({"model": model, "texts": texts})
        return np.array([[len(text), ord(text[0]) if text else 0] for text in texts], np.float32).reshape(-1, 2)

    async def rerank(self, model: str, query: str, documents: Sequence[str]) -> list[float]:
        self.asked.append({"model": model, "query": query, "documents": documents})
        return [float(len(document)) for document in documents]

    async def tokenize(self, model: str, texts: Sequence[str]) -> list[list[tuple[int, int]]]:
        raise NotImplementedError("no model operator asks for tokens")

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
        self.asked.append(
            {
                "model": model,
                "messages": [dict(message) for message in messages],
                "max_tokens": max_tokens,
                "temperature": temperature,
                "stop": stop,
                "seed": seed,
                "schema": schema,
            }
        )
        words = self.answers.pop(0).split(" ")
        for number, word in enumerate(words):
            yield Token(text=word if number == 0 else f" {word}")
        if self.finishes:
            yield Token(finish="stop", prompt_tokens=7, completion_tokens=len(words))

    async def info(self, model: str) -> EngineInfo:
        raise NotImplementedError("no model operator asks what serves a model")


class ScriptedContext:
    """A context of which model operators use the client alone."""

    def __init__(self, folder: Path) -> None:
        self.run_id = "r1"
        self.step = "step"
        self.base = folder
        self.client = ScriptedClient()

    def new_artifact(self) -> ArtifactDir:
        raise NotImplementedError("no model operator makes an artifact")

    def open_once(self, artifact: Artifact, load: Callable[[Path], T]) -> T:
        raise NotImplementedError("no model operator opens an artifact")

    def digest_files(self, paths: Sequence[Path]) -> list[str]:
        raise NotImplementedError("no model operator reads files")

    def warn(self, message: str) -> None:
        raise AssertionError(f"unexpected warning: {message}")


@pytest.fixture
def ctx(tmp_path: Path) -> ScriptedContext:
    return ScriptedContext(tmp_path)
