"""Tests of sage_core.kernel.runtime.metered: what model calls cost, counted while they happen."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from pathlib import Path

import sage_core.testing.engines as fake
from sage_core.builtins import default_host
from sage_core.common.paths import Paths
from sage_core.common.records import ModelSpec, Token
from sage_core.kernel.control_plane.client import UnifiedInferenceClient
from sage_core.kernel.runtime.metered import Metered


def with_client(home: Path, use: Callable[[Metered, Counter[str]], Awaitable[None]]) -> Counter[str]:
    usage: Counter[str] = Counter()

    async def go() -> None:
        paths = Paths(project=home / "project", data=home / "data", runtime=home / "run")
        models = {"m": ModelSpec(name="m", backend="fake")}
        client = UnifiedInferenceClient.create(models, paths=paths, host=default_host({"fake": fake}), inline=True)
        async with client:
            await use(Metered(client, usage, lambda seconds: None), usage)

    asyncio.run(go())
    return usage


def ask(client: Metered, text: str) -> aclosing[AsyncGenerator[Token]]:
    stream = client.generate("m", [{"role": "user", "content": text}])
    assert isinstance(stream, AsyncGenerator)
    return aclosing(stream)


def test_pieces_count_while_they_stream_and_the_engines_count_has_the_last_word(tmp_path: Path) -> None:
    seen: list[int] = []

    async def use(client: Metered, usage: Counter[str]) -> None:
        async with ask(client, "three small words") as tokens:
            async for _ in tokens:
                seen.append(usage["completion"])

    assert with_client(tmp_path, use) == {"prompt": 3, "completion": 3}
    assert seen == [1, 2, 3, 3]


def test_an_answer_that_is_closed_early_costs_what_was_written(tmp_path: Path) -> None:
    async def use(client: Metered, usage: Counter[str]) -> None:
        async with ask(client, "three small words") as tokens:
            async for _ in tokens:
                break

    assert with_client(tmp_path, use) == {"completion": 1}


def test_what_generates_nothing_costs_no_tokens(tmp_path: Path) -> None:
    async def use(client: Metered, usage: Counter[str]) -> None:
        assert (await client.embed("m", ["a", "b"])).shape == (2, 16)
        assert await client.rerank("m", "a", ["a b", "c"]) == [0.5, 0.0]
        assert await client.tokenize("m", ["a bc"]) == [[(0, 1), (2, 4)]]
        assert (await client.info("m")).kinds

    assert with_client(tmp_path, use) == {}
