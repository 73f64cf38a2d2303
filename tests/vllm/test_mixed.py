"""Two vLLM engines and the ONNX embedder behind one gateway: mixed load, other policies, a killed engine, idleness."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import aiohttp
import msgspec
import pytest
from sage_gateway.testing import Running, serving

from sage_core.serving import default_host

from .conftest import SMALL
from .test_smoke import servers_of

POLICIES = ("fifo", "hybrid", "slo_aware", "vtc")
#: Of all kinds together, in the test of mixed load.
REQUESTS = 48


@pytest.fixture(scope="module")
def running(smollm2: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """A gateway whose two vLLM engines are up."""
    chat = {
        "backend": "vllm",
        "source": str(smollm2),
        **SMALL,
        "sequences": 4,
        # A core each.
        "engines": [{"cores": "0"}, {"cores": "1"}],
    }
    models = {"chat": chat, "minilm": {"backend": "onnx"}}
    tables = {"scheduler": {"requests": POLICIES[0]}}
    with serving(tmp_path_factory.mktemp("mixed"), default_host(), models, tables) as gateway:
        wait_for_engines(gateway, 2)
        yield gateway


def engines(running: Running) -> dict[str, Any]:
    """The open chat engines by id."""

    def look() -> dict[str, Any]:
        driver = running.gateway.driver
        pool = driver.manager.pools[running.gateway.lanes["chat"]]
        up = [name for name, standing in pool.engines.items() if standing.state == "up"]
        return {name: driver.pools.engine(name) for name in up}

    return running.call(look)


def wait_for_engines(running: Running, count: int, seconds: float = 300) -> None:
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

    @property
    def events(self) -> list[str]:
        """Of a stream."""
        found = self.body.decode().split("\n\n")
        return [event.removeprefix("data: ") for event in found if event.startswith("data: ")]

    @property
    def well(self) -> bool:
        """Whether it was answered whole."""
        return self.status == 200 and (self.kind != "stream" or self.events[-1] == "[DONE]")


async def ask(session: aiohttp.ClientSession, kind: str, number: int, tokens: int = 12) -> Asked:
    """Send one request and read all of its answer."""
    asked = Asked(kind)
    if kind == "embed":
        path = "embeddings"
        body: dict[str, Any] = {"model": "minilm", "input": [f"text {number} " * (1 + number % 30)]}
    else:
        messages = [{"role": "user", "content": f"{number}: tell me about the number {number}."}]
        path = "chat/completions"
        body = {"model": "chat", "messages": messages, "max_tokens": tokens, "stream": kind == "stream"}
        body["ignore_eos"] = True
    async with session.post(path, json=body) as answer:
        asked.status = answer.status
        asked.id = answer.headers.get("x-request-id", "")
        asked.engine = answer.headers.get("x-sage-engine", "")
        asked.body = await answer.read()
    return asked


def at(running: Running) -> aiohttp.ClientSession:
    connector = aiohttp.TCPConnector(limit=0)
    return aiohttp.ClientSession(
        f"{running.url}/v1/", connector=connector, timeout=aiohttp.ClientTimeout(total=300), trust_env=False
    )


def test_mixed_traffic_is_answered_while_policies_change(running: Running) -> None:
    async def body() -> list[Asked]:
        async with at(running) as session:
            works = [("stream", "whole", "embed", "embed")[number % 4] for number in range(REQUESTS)]
            tasks = []
            for number, kind in enumerate(works):
                tasks.append(asyncio.create_task(ask(session, kind, number)))
                if number % (REQUESTS // 4) == 0:
                    # While some run and more wait, another policy takes over.
                    policy = POLICIES[number * 4 // REQUESTS]
                    await asyncio.to_thread(running.call, lambda policy=policy: running.gateway.driver.switch(policy))
                await asyncio.sleep(0.02)
            return await asyncio.gather(*tasks)

    before = running.call(lambda: set(running.gateway.decisions))
    answers = asyncio.run(body())
    assert Counter(asked.status for asked in answers) == {200: REQUESTS}
    assert all(asked.well for asked in answers)
    assert len({asked.engine for asked in answers if asked.kind != "embed"}) == 2, "one engine did all the work"
    assert running.settled()
    lines = running.call(lambda: {name: list(said) for name, said in running.gateway.decisions.items()})
    ended = [line for name, said in lines.items() if name not in before for line in said]
    assert Counter(line.outcome for line in ended) == {"done": REQUESTS}
    assert running.call(lambda: running.gateway.driver.manager.faults) == ()


def test_a_killed_engine_ends_its_streams_as_errors_and_comes_back(running: Running) -> None:
    async def body() -> tuple[str, list[Asked]]:
        async with at(running) as session:
            tasks = [asyncio.create_task(ask(session, "stream", number, 150)) for number in range(8)]
            # Until every stream has begun.
            await all_in_engines(running, 8)
            await asyncio.sleep(0.5)
            name, victim = next(iter(engines(running).items()))
            children = servers_of(os.getpid()) & group_of(victim.process.pid)
            for pid in children - {victim.process.pid}:
                os.kill(pid, signal.SIGKILL)
            return name, await asyncio.gather(*tasks)

    wait_for_engines(running, 2)
    before = running.call(lambda: set(running.gateway.decisions))
    dead, answers = asyncio.run(body())
    lost = [asked for asked in answers if asked.engine == dead]
    assert len(lost) == 4
    for asked in lost:
        # Its status had been sent already: the stream says what happened and does not end like a whole one.
        assert asked.status == 200
        assert json.loads(asked.events[-1])["error"]["message"]
        assert "[DONE]" not in asked.events
    assert all(asked.well for asked in answers if asked.engine != dead)
    assert running.settled()
    lines = running.call(lambda: {name: list(said) for name, said in running.gateway.decisions.items()})
    ended = [line for name, said in lines.items() if name not in before for line in said]
    assert Counter(line.outcome for line in ended) == {"done": 4, "failed": 4}
    wait_for_engines(running, 2)
    assert dead not in engines(running)

    async def again() -> list[Asked]:
        async with at(running) as session:
            return await asyncio.gather(*(ask(session, "whole", number, 4) for number in range(8)))

    assert all(asked.well for asked in asyncio.run(again()))


def test_a_client_that_leaves_gives_its_place_back(running: Running) -> None:
    """Eight places, all taken by answers that nobody reads any more: the next ones must not wait for their end."""
    wait_for_engines(running, 2)

    async def body() -> list[Asked]:
        async with at(running) as session:
            tasks = [asyncio.create_task(ask(session, kind, 1, 1_500)) for kind in ("stream", "whole") * 4]
            await all_in_engines(running, 8)
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            return await asyncio.gather(*(ask(session, "whole", number, 2) for number in range(8)))

    assert all(asked.well for asked in asyncio.run(body()))
    assert running.settled()
    # The engines themselves have given the work up: 1,500 tokens would take them a minute.
    end = time.monotonic() + 15
    for engine in engines(running).values():
        while running.wait(figure(engine, "running")):
            assert time.monotonic() < end, "vLLM goes on with what nobody reads"


def test_engines_without_work_are_closed_and_leave_nothing(running: Running) -> None:
    groups = set().union(*(group_of(engine.process.pid) for engine in engines(running).values()))
    assert groups

    def rest() -> None:
        spec = running.gateway.models["chat"]
        options = {**spec.options, "min": 0, "idle": "1s"}
        running.gateway.serve(msgspec.structs.replace(spec, options=options))

    running.call(rest)
    end = time.monotonic() + 60
    while groups & set().union(*map(group_of, groups)):
        assert time.monotonic() < end, "an idle engine does not close"
        time.sleep(0.2)
    assert engines(running) == {}


async def all_in_engines(running: Running, count: int) -> None:
    """Wait until so many requests have been sent to engines; the test's own limit ends it."""

    def flying() -> int:
        return len(running.gateway.driver.manager._flights)

    while await asyncio.to_thread(running.call, flying) < count:  # noqa: ASYNC110 - nobody tells of it
        await asyncio.sleep(0.05)


async def figure(engine: Any, name: str) -> float:
    from sage_vllm.figures import read_figures

    return read_figures(await engine.process.get("/metrics"))[name]


def group_of(pid: int) -> set[int]:
    """The processes of a process group."""
    from .test_smoke import running as processes

    return {each for each, (_, group) in processes().items() if group == pid}
