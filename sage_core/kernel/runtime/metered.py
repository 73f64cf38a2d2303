"""Counts what model calls cost, between a step and the inference client."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import aclosing, contextmanager
from typing import TYPE_CHECKING, Any

from sage_core.common.contracts import InferenceClient
from sage_core.common.records import EngineInfo, Token

if TYPE_CHECKING:
    from sage_core.common.contracts import Floats


class Metered:
    """An `InferenceClient` that adds the tokens of generated answers to a counter: ``prompt`` and ``completion``.

    While an answer streams, each piece counts as one token; the engine's own count replaces that at the end.

    Args:
        answered: is told after how many seconds an answer came, or began.
    """

    def __init__(self, client: InferenceClient, usage: Counter[str], answered: Callable[[float], None]) -> None:
        self._client = client
        self._usage = usage
        self._answered = answered

    async def embed(self, model: str, texts: Sequence[str]) -> Floats:
        with self._timed():
            return await self._client.embed(model, texts)

    async def generate(self, model: str, messages: Sequence[Mapping[str, str]], **options: Any) -> AsyncIterator[Token]:
        stream = self._client.generate(model, messages, **options)
        pieces, asked = 0, time.monotonic()
        async with aclosing(stream) as tokens:  # type: ignore[type-var] # implementations are async generators
            async for token in tokens:
                self._answered(time.monotonic() - asked)
                if token.text:
                    pieces += 1
                    self._usage["completion"] += 1
                if token.finish:
                    self._usage["prompt"] += token.prompt_tokens
                    self._usage["completion"] += token.completion_tokens - pieces
                yield token

    async def rerank(self, model: str, query: str, documents: Sequence[str]) -> list[float]:
        with self._timed():
            return await self._client.rerank(model, query, documents)

    async def tokenize(self, model: str, texts: Sequence[str]) -> list[list[tuple[int, int]]]:
        with self._timed():
            return await self._client.tokenize(model, texts)

    async def info(self, model: str) -> EngineInfo:
        with self._timed():
            return await self._client.info(model)

    @contextmanager
    def _timed(self) -> Iterator[None]:
        asked = time.monotonic()
        yield
        self._answered(time.monotonic() - asked)
