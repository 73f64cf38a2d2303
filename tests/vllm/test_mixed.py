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

import msgspec
import pytest
from sage_gateway.testing import Running, serving

from sage_core.serving import default_host

from .conftest import SMALL
from .test_smoke import servers_of
from .traffic import (
    Asked,
    all_begun,
    all_in_engines,
    ask,
    at,
    engines,
    figure,
    group_of,
    known,
    lines_of,
    wait_for_engines,
)

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

    before = known(running)
    answers = asyncio.run(body())
    assert Counter(asked.status for asked in answers) == {200: REQUESTS}
    assert all(asked.well for asked in answers)
    assert len({asked.engine for asked in answers if asked.kind != "embed"}) == 2, "one engine did all the work"
    assert running.settled()
    ended = lines_of(running, before)
    assert Counter(line.outcome for line in ended) == {"done": REQUESTS}
    assert running.call(lambda: running.gateway.driver.manager.faults) == ()


def test_every_request_is_accounted_for_when_an_engine_dies_under_a_mixed_load(running: Running) -> None:
    """All at once: streams, whole answers and texts, another policy every now and then, and a kill in the middle."""

    async def body() -> list[Asked]:
        async with at(running) as session:
            works = [("stream", "whole", "embed")[number % 3] for number in range(REQUESTS)]
            tasks = []
            for number, kind in enumerate(works):
                tasks.append(asyncio.create_task(ask(session, kind, number, 30)))
                if number % (REQUESTS // 4) == 0:
                    policy = POLICIES[number * 4 // REQUESTS]
                    await asyncio.to_thread(running.call, lambda policy=policy: running.gateway.driver.switch(policy))
                await asyncio.sleep(0.02)
            # Both engines are full, most of the rest waits.
            await all_in_engines(running, 8)
            await asyncio.sleep(1.0)
            kill(next(iter(engines(running).values())))
            return await asyncio.gather(*tasks)

    wait_for_engines(running, 2)
    before = known(running)
    answers = asyncio.run(body())
    assert running.settled()
    said = Counter("well" if asked.well else "broken" for asked in answers)
    ended = {line.request: line.outcome for line in lines_of(running, before)}
    # One end for each; what broke was in the engine that died, whole answers beside streams.
    assert len(answers) == len(ended) == REQUESTS
    assert Counter(ended.values()) == {"done": said["well"], **({"failed": said["broken"]} if said["broken"] else {})}
    assert said["broken"] <= 4
    for asked in answers:
        assert asked.well == (ended[asked.id] == "done")
        if not asked.well:
            told = asked.events[-1] if asked.status == 200 else asked.body
            assert json.loads(told)["error"]["message"]
    assert running.call(lambda: running.gateway.driver.manager.faults) == ()
    wait_for_engines(running, 2)


def kill(engine: Any) -> None:
    """Kill a server of a gateway of this process, and not who looks after it."""
    for pid in (servers_of(os.getpid()) & group_of(engine.process.pid)) - {engine.process.pid}:
        os.kill(pid, signal.SIGKILL)


def test_a_killed_engine_ends_its_streams_as_errors_and_comes_back(running: Running) -> None:
    async def body() -> tuple[str, list[Asked]]:
        async with at(running) as session:
            tasks = [asyncio.create_task(ask(session, "stream", number, 150)) for number in range(8)]
            await all_in_engines(running, 8)
            await all_begun(running)
            name, victim = next(iter(engines(running).items()))
            kill(victim)
            return name, await asyncio.gather(*tasks)

    wait_for_engines(running, 2)
    before = known(running)
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
    ended = lines_of(running, before)
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
