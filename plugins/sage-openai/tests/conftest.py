"""An engine before a fake server that can be told to do anything wrong."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import aclosing
from typing import Any

import pytest
from sage_openai.backend import OpenAIBackend

from sage_core import Chunk, ModelSpec, SageError, Token
from sage_core.testing import FakeOptions, FakeUpstream

FAST = {"timeout": 0.3, "stall": 0.2, "health": 0, "kinds": ["generate", "embed", "rerank"]}


@pytest.fixture
def within() -> Callable[..., Any]:
    """Runs against an engine; afterwards its server must have lost every connection."""
    return _within


@pytest.fixture
def told() -> Callable[[Any], Awaitable[tuple[bytes, str]]]:
    """Awaits what came of a stream, and the error after it."""
    return _told


def _within(use: Callable[[FakeUpstream, Any], Awaitable[Any]], *, key: str = "", **options: Any) -> Any:
    async def body() -> Any:
        async with FakeUpstream(FakeOptions(sequences=100, tokens_per_second=1_000), key=key) as upstream:
            given = {"base_url": upstream.url, **FAST, **options}
            async with OpenAIBackend().open(ModelSpec(name="fake", backend="openai", options=given)) as engine:
                result = await use(upstream, engine)
            await asyncio.wait_for(upstream.quiet.wait(), 5)
            return result

    return asyncio.run(asyncio.wait_for(body(), 20))


async def _told(stream: Any) -> tuple[bytes, str]:
    pieces: list[Any] = []
    try:
        async with aclosing(stream):
            async for piece in stream:
                pieces.append(piece)
    except SageError as error:
        return _joined(pieces), f"{type(error).__name__}: {error}"
    return _joined(pieces), ""


def _joined(pieces: list[Chunk | Token]) -> bytes:
    return b"".join(piece.data if isinstance(piece, Chunk) else piece.text.encode() for piece in pieces)
