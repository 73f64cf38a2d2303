"""A real vLLM that is adopted: nothing of ours is taken for others', and what others ask of it takes room."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import aiohttp
from sage_gateway.testing import Running, serving

from sage_core.serving import default_host

from .conftest import Server
from .traffic import ask, at, wait_for_engines

PLACES = 4


def held(running: Running) -> tuple[int, int]:
    """What the engine holds of ours, and of others, as far as the ledger knows."""

    def look() -> tuple[int, int]:
        manager = running.gateway.driver.manager
        lane = running.gateway.lanes["chat"]
        [engine] = manager.pools[lane].engines
        seats = manager._ledger.seats(engine, lane)
        assert seats is not None
        return seats.running, seats.others

    return running.call(look)


async def watching(running: Running, work: Awaitable[Any]) -> list[tuple[int, int]]:
    """What the engine held while something was done."""
    task = asyncio.ensure_future(work)
    found = []
    while not task.done():
        found.append(await asyncio.to_thread(held, running))
        await asyncio.sleep(0.02)
    await task
    return found


async def until(running: Running, others: Callable[[int], bool]) -> None:
    """Wait until others have so many there; the test's own limit ends it."""
    while not others((await asyncio.to_thread(held, running))[1]):  # noqa: ASYNC110 - nobody tells of it
        await asyncio.sleep(0.05)


async def theirs(chat: Server, tokens: int) -> None:
    """A request that goes past the gateway."""
    body = {"model": "chat", "prompt": "Once", "max_tokens": tokens, "ignore_eos": True}
    headers = {"Authorization": f"Bearer {chat.process.key}"}
    async with (
        aiohttp.ClientSession(headers=headers, trust_env=False) as session,
        session.post(f"{chat.process.root}/v1/completions", json=body) as answer,
    ):
        await answer.read()


async def left(session: aiohttp.ClientSession, number: int) -> None:
    """A request of ours whose caller leaves."""
    task = asyncio.create_task(ask(session, "stream", number, 400))
    await asyncio.sleep(0.5)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def several(session: aiohttp.ClientSession) -> None:
    """One request of ours that vLLM counts as three."""
    body = {"model": "chat", "prompt": "Once", "max_tokens": 40, "ignore_eos": True, "n": 3}
    async with session.post("completions", json=body) as answer:
        assert len((await answer.json())["choices"]) == 3


def test_others_take_room_and_nothing_of_ours_is_taken_for_theirs(chat: Server, tmp_path: Path) -> None:
    options = {key: chat.spec.options[key] for key in ("base_url", "api_key")}
    model = {"backend": "vllm", **options, "sequences": PLACES, "figures": 0.1, "min": 1}

    async def body(running: Running) -> None:
        async with at(running) as session:
            ours = [ask(session, ("stream", "whole")[number % 2], number, 16) for number in range(24)]
            seen = await watching(
                running, asyncio.gather(*ours, several(session), *(left(session, number) for number in range(4)))
            )
            assert max(own for own, _ in seen) == PLACES
            assert {others for _, others in seen} == {0}

            guests = [asyncio.create_task(theirs(chat, 1_500)) for _ in range(3)]
            await until(running, lambda others: others == 3)
            seen = await watching(running, asyncio.gather(*(ask(session, "whole", number, 6) for number in range(6))))
            # One look may find a request of theirs between two steps: less room than there was, not always one place.
            assert max(own for own, _ in seen) < PLACES
            for guest in guests:
                guest.cancel()
            await asyncio.gather(*guests, return_exceptions=True)

    with serving(tmp_path, default_host(), {"chat": model}) as running:
        wait_for_engines(running, 1)
        asyncio.run(body(running))
        assert running.settled()
