"""Requests to a gateway in front of real engines, and what became of each."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from typing import Any

import aiohttp
from sage_gateway.testing import Running
from sage_vllm.figures import read_figures
from sage_vllm.process import fetch

from sage_core.serving import Decided

from .test_smoke import running as processes


def engines(running: Running) -> dict[str, Any]:
    """The open chat engines by id."""

    def look() -> dict[str, Any]:
        driver = running.gateway.driver
        pool = driver.manager.pools[running.gateway.lanes["chat"]]
        up = [name for name, standing in pool.engines.items() if standing.state == "up"]
        return {name: driver.pools.engine(name) for name in up}

    return running.call(look)


def wait_for_engines(running: Running, count: int, seconds: float = 300) -> None:
    """Wait until so many chat engines are up."""
    end = time.monotonic() + seconds
    while len(engines(running)) < count:
        assert time.monotonic() < end, f"{count} engines are not up after {seconds} s"
        time.sleep(0.25)


class Asked:
    """What became of one request."""

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self.status = 0
        self.id = ""
        self.engine = ""
        self.body = b""
        #: Seconds to the first byte of the answer.
        self.first = 0.0

    @property
    def events(self) -> list[str]:
        """Of a stream."""
        found = self.body.decode().split("\n\n")
        return [event.removeprefix("data: ") for event in found if event.startswith("data: ")]

    @property
    def well(self) -> bool:
        """Whether it was answered whole."""
        return self.status == 200 and (self.kind != "stream" or self.events[-1] == "[DONE]")


async def ask(
    session: aiohttp.ClientSession, kind: str, number: int, tokens: int = 12, headers: Mapping[str, str] | None = None
) -> Asked:
    """Send one request and read all of its answer."""
    asked = Asked(kind)
    began = time.monotonic()
    if kind == "embed":
        path = "embeddings"
        body: dict[str, Any] = {"model": "minilm", "input": [f"text {number} " * (1 + number % 30)]}
    else:
        messages = [{"role": "user", "content": f"{number}: tell me about the number {number}."}]
        path = "chat/completions"
        body = {"model": "chat", "messages": messages, "max_tokens": tokens, "stream": kind == "stream"}
        body["ignore_eos"] = True
    async with session.post(path, json=body, headers=headers) as answer:
        asked.status = answer.status
        asked.id = answer.headers["x-sage-request-id"]
        asked.engine = answer.headers.get("x-sage-engine", "")
        async for data in answer.content.iter_any():
            asked.first = asked.first or time.monotonic() - began
            asked.body += data
    return asked


def at(running: Running) -> aiohttp.ClientSession:
    """A session with a gateway that holds nobody back."""
    connector = aiohttp.TCPConnector(limit=0)
    return aiohttp.ClientSession(
        f"{running.url}/v1/", connector=connector, timeout=aiohttp.ClientTimeout(total=300), trust_env=False
    )


def lines_of(running: Running, before: set[str]) -> list[Decided]:
    """The decision log of all requests but those, in the order in which they were decided."""
    lines = running.call(lambda: {name: list(said) for name, said in running.gateway.decisions.items()})
    return [line for name, said in lines.items() if name not in before for line in said]


def known(running: Running) -> set[str]:
    """Requests that are in the decision log."""
    return running.call(lambda: set(running.gateway.decisions))


async def all_in_engines(running: Running, count: int) -> None:
    """Wait until so many requests have been sent to engines; the test's own limit ends it."""

    def flying() -> int:
        return len(running.gateway.driver.manager._flights)

    while await asyncio.to_thread(running.call, flying) < count:  # noqa: ASYNC110 - nobody tells of it
        await asyncio.sleep(0.05)


async def all_begun(running: Running) -> None:
    """Wait until everything in the engines has its first token."""

    def begun() -> bool:
        return all(flight.streamed for flight in running.gateway.driver.manager._flights._flying.values())

    while not await asyncio.to_thread(running.call, begun):  # noqa: ASYNC110 - nobody tells of it
        await asyncio.sleep(0.05)


async def figure(engine: Any, name: str) -> float:
    """What a server of a gateway says of itself."""
    process = engine.process
    return read_figures(await fetch(process.name, f"{process.root}/metrics", process.key))[name]


def group_of(pid: int) -> set[int]:
    """The processes of a process group."""
    return {each for each, (_, group) in processes().items() if group == pid}
