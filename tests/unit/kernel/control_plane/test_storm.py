"""Thousands of random operations on the real driver: each request ends once, and every credit comes back."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Iterable
from contextlib import aclosing
from typing import Any

import msgspec
import pytest

from sage_core.common.contracts import Scheduler
from sage_core.common.errors import SageError
from sage_core.common.policies import KeyedScheduler
from sage_core.common.records import ModelSpec, QueueLimits, Request, Work
from sage_core.kernel.control_plane import events
from sage_core.kernel.control_plane.backlog import fifo
from sage_core.kernel.control_plane.driver import Driver
from sage_core.kernel.control_plane.manager import ControlPlaneManager
from sage_core.testing.engines import FakeEngine, FakeOptions
from sage_core.testing.virtual import replay
from tests.unit.kernel.control_plane.field import Field, direct, read

SEEDS = (1, 2, 3, None)
OPERATIONS = 1_500
FAULTS = ("flaky", "poison", "deadly", "hang", "garbage")
QUICK = {
    "open_seconds": 0.05, "ttft": 0.01, "tokens_per_second": 500, "batch_seconds": 0.002, "row_seconds": 0.001,
    "after": 2, "fail_every": 40, **{fault: fault for fault in FAULTS},
}  # fmt: skip


class LastComeFirstServed:
    def rank(self, work: Work) -> float:
        return -float(work.arrival)


def named(name: str) -> Scheduler:
    return KeyedScheduler(LastComeFirstServed()) if name == "lifo" else fifo()


class Spied(ControlPlaneManager):
    """Keeps what it decided."""

    def __init__(self) -> None:
        super().__init__(named)
        self.made: list[list[events.Action]] = []

    def step(self, inputs: Iterable[events.Input], now: int) -> list[events.Action]:
        self.made.append(actions := super().step(inputs, now))
        return actions


class Storm:
    """Callers that come, wait, read and go as a seed says, and operators that change things meanwhile."""

    def __init__(self, seed: int) -> None:
        self.chance = random.Random(seed)
        self.field = Field()
        self.manager = self.field.manager = Spied()
        self.ends: Counter[str] = Counter()
        self.specs = [
            ModelSpec(name="m", backend="Kept", options={**QUICK, "sequences": 3, "engines": [{"dimension": 16}] * 3}),
            ModelSpec(name="m", backend="Kept", options={**QUICK, "sequences": 8, "dimension": 8, "idle": "1s"}),
            ModelSpec(name="m", backend="Kept", options={"open_fails": 1, "queue": {"requests": 3, "wait": "20ms"}}),
        ]

    async def run(self, driver: Driver) -> None:
        self.driver = driver
        callers = []
        for number in range(OPERATIONS):
            # Bursts, so that queues fill and run empty.
            await asyncio.sleep(self.chance.expovariate(1_000 if number % 300 < 200 else 50))
            callers.append(asyncio.create_task(self._call(number)))
            if number % 25 == 24:
                self._operate()
        await asyncio.gather(*callers)
        await asyncio.sleep(60)

    async def _call(self, number: int) -> None:
        spec = self.chance.choice(self.specs)
        marks = [mark for mark in FAULTS if self.chance.random() < 0.01]
        texts = tuple(" ".join([f"word{self.chance.randrange(20)}" for _ in range(4)]) for _ in range(3))
        text = " ".join([*texts[0].split(), *marks])
        patience = self.chance.choice((None, None, None, 0.005, 0.05, 0.5))
        if "hang" in marks:
            patience = 1.0
        try:
            async with asyncio.timeout(patience):
                await self._ask(self.chance.randrange(8), number, spec, text, (text, *texts[1:]))
            self.ends["done"] += 1
        except (SageError, TimeoutError) as error:
            self.ends[type(error).__name__] += 1

    async def _ask(self, way: int, number: int, spec: ModelSpec, text: str, texts: tuple[str, ...]) -> None:
        driver, request = self.driver, self.field.chat(text, stream=way < 2)
        request = msgspec.structs.replace(request, id=f"{number}")
        if way < 3:
            if self.chance.random() < 0.3:
                await self._read_a_little(driver.forward(request, spec))
                return
            data, _ = await read(driver.forward(request, spec))
            if "garbage" not in text:
                assert data == await direct(request), "bytes were lost, doubled or mixed up"
        elif way == 3:
            messages = ({"role": "user", "content": text},)
            await self._read_a_little(
                driver.generate(
                    request_of(request, "generate", messages=messages, whole=self.chance.random() < 0.5), spec
                )
            )
        elif way < 6:
            # A batch that hangs would hang its neighbours, some of whom have all the time in the world.
            texts = tuple(each.replace("hang", "rest") for each in texts)
            vectors = await driver.ask(request_of(request, "embed", texts=texts), spec)
            assert (vectors == await FakeEngine("m", FakeOptions(dimension=vectors.shape[1])).embed(texts)).all()
        elif way == 6:
            assert len(await driver.ask(request_of(request, "rerank", texts=texts), spec)) == 2
        else:
            assert len(await driver.ask(request_of(request, "tokenize", texts=texts), spec)) == 3

    async def _read_a_little(self, stream: Any) -> None:
        async with aclosing(stream):
            async for _ in stream:
                await asyncio.sleep(self.chance.choice((0, 0, 0.01, 0.2)))
                if self.chance.random() < 0.2:
                    return

    def _operate(self) -> None:
        driver, spec = self.driver, self.chance.choice(self.specs)
        up = [engine for pool in self.manager.pools.values() for engine in pool.engines]
        match self.chance.randrange(6):
            case 0:
                driver.switch(self.chance.choice(("lifo", "")), self.chance.choice(("", events.lane_of(spec))))
            case 1 if up:
                driver.drain(self.chance.choice(up))
            case 2:
                driver.withdraw(events.lane_of(spec))
                asyncio.get_running_loop().call_later(0.05, driver.serve, spec)
            case 3:
                driver.serve(spec, queue=QueueLimits(requests=self.chance.choice((0, 5, 50))))
            case 4 if self.field.opened:
                self.chance.choice(self.field.opened[-5:])._killed.set()


def request_of(request: Request, kind: Any, **fields: Any) -> Request:
    return Request(id=request.id, kind=kind, model="m", **fields)


@pytest.mark.parametrize("given", SEEDS, ids=str)
def test_each_request_ends_once_and_every_credit_comes_back(given: int | None) -> None:
    # Drawn here and not in the id, which every process that runs tests has to know alike.
    seed = random.SystemRandom().randrange(10**6) if given is None else given
    print(f"seed {seed}")
    storm = Storm(seed)
    field = storm.field

    async def use(driver: Driver) -> None:
        await storm.run(driver)
        assert driver._calls == {}
        assert driver._dispatches._running == {}
        for spec in storm.specs:
            driver.serve(spec)
            vectors = await driver.ask(Request(id=f"after {spec.options}", kind="embed", model="m", texts=("a",)), spec)
            assert vectors.shape[0] == 1

    field.run(use)
    assert sum(storm.ends.values()) == OPERATIONS
    assert {"done", "TimeoutError", "ModelError"} <= set(storm.ends), storm.ends
    ends = Counter(action.request for made in storm.manager.made for action in made if isinstance(action, events.End))
    submitted = [
        event.outline.id for each in field.instants for event in each.inputs if isinstance(event, events.Submitted)
    ]
    assert ends == Counter(submitted)
    assert {line.request for line in field.decided} == set(submitted)
    # What a fresh manager decides for the same inputs is the same.
    assert [*replay(field.instants, ControlPlaneManager(named))] == storm.manager.made
