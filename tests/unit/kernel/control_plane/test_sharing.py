"""An engine that says what it holds: nothing changes where all of it is ours, and others take room where it is not."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from sage_core.common.clock import MILLISECOND
from sage_core.common.contracts import Shared
from sage_core.common.records import Caller, Capacity, ModelSpec, Occupancy, Request
from sage_core.common.registry import Registry
from sage_core.kernel.control_plane.driver import Driver
from sage_core.kernel.control_plane.events import Action, DispatchOne, End, Instant, Scraped
from sage_core.kernel.control_plane.manager import ControlPlaneManager
from sage_core.kernel.control_plane.recording import replay
from sage_core.testing.clock import LoopClock, run_skipping
from sage_core.testing.engines import FakeBackend, FakeEngine, FakeOptions
from sage_core.testing.virtual import EngineModel, VirtualDriver
from tests.unit.kernel.control_plane.test_manager import single

MODEL = EngineModel(capacity=Capacity(sequences=4, prefill_tokens=200, kv_tokens=400))
Arrival = tuple[int, int, int, int]


def driven(arrivals: list[Arrival], told: dict[int, int]) -> VirtualDriver:
    """Requests that come, some of which leave, beside what the engine says of itself at these times (ms)."""
    driver = VirtualDriver(ControlPlaneManager(), MODEL)
    for number, (at, size, tokens, leaves) in enumerate(arrivals):
        driver.submit(at * MILLISECOND, single(f"r{number}", size=size, max_tokens=tokens))
        if leaves:
            driver.cancel((at + leaves) * MILLISECOND, f"r{number}")
    for at, requests in told.items():
        occupancy = Occupancy(requests=requests, kv_tokens=100 * requests)
        driver.tell(at * MILLISECOND, Scraped(engine="m#1", occupancy=occupancy))
    driver.advance()
    return driver


def in_engine(actions: list[tuple[int, Action]], at: int) -> int:
    """What was sent before a moment (ms) and had not ended."""
    now = at * MILLISECOND
    sent = {action.request: None for when, action in actions if when < now and isinstance(action, DispatchOne)}
    ended = {action.request for when, action in actions if when < now and isinstance(action, End)}
    return sum(request not in ended for request in sent)


times = st.integers(1, 400)
arrivals = st.lists(
    st.tuples(times, st.integers(1, 400), st.integers(1, 30), st.one_of(st.just(0), st.integers(1, 100))), max_size=30
)


@given(arrivals, st.lists(times, max_size=40))
def test_an_engine_that_is_ours_alone_decides_the_same_whether_it_is_looked_at_or_not(
    requests: list[Arrival], looks: list[int]
) -> None:
    alone = driven(requests, {})
    watched = driven(requests, {at: in_engine(alone.actions, at) for at in sorted(looks)})
    assert watched.actions == alone.actions


def test_what_others_have_in_an_engine_takes_room_and_gives_it_back() -> None:
    # The first one opens the engine.
    many = [(1, 4, 1, 0), *[(1_000, 4, 10, 0)] * 8]
    assert most(driven(many, {})) == 4
    # Looks that see three requests that nobody here sent; the first one may mistake one of them for ours.
    assert most(driven(many, {400: 3, 500: 3, 600: 3})) == 1
    assert most(driven(many, {500: 3})) == 4
    assert most(driven(many, {400: 3, 500: 3, 600: 3, 700: 0, 800: 0})) == 4


def most(driver: VirtualDriver) -> int:
    """The most that was in the engine at once."""
    times = sorted({at for at, _ in driver.actions})
    return max(in_engine(driver.actions, at // MILLISECOND + 1) for at in times)


class Crowded(FakeEngine):
    """Three requests of others are always in it."""

    async def watch(self) -> None:
        await asyncio.Event().wait()

    async def occupancies(self) -> AsyncIterator[Occupancy]:
        while True:
            await asyncio.sleep(1.0)
            yield Occupancy(requests=self.running + 3)


class CrowdedBackend(FakeBackend):
    @asynccontextmanager
    async def open(self, model: ModelSpec) -> AsyncIterator[Crowded]:
        engine = Crowded(model.name, FakeOptions(**model.options))
        assert isinstance(engine, Shared)
        yield engine


def test_a_live_engine_is_heard_and_its_word_is_recorded() -> None:
    spec = ModelSpec(name="m", backend="crowded", options={"sequences": 4, "ttft": 1.0})
    instants: list[Instant] = []
    running: list[int] = []

    async def body() -> None:
        backends = Registry("backend")
        backends.add("test", {"crowded": f"{__name__}:CrowdedBackend"})
        async with Driver(ControlPlaneManager(), backends, clock=LoopClock(), record=instants.append) as driver:

            async def ask(number: int) -> None:
                request = Request(id=str(number), kind="generate", model="m", messages=MESSAGES, caller=Caller())
                async for _ in driver.generate(request, spec):
                    [engine] = driver.pools._engines.values()
                    assert isinstance(engine, Crowded)
                    running.append(engine.running)

            await ask(0)
            await asyncio.sleep(5.0)
            running.clear()
            await asyncio.gather(*(ask(number) for number in range(1, 5)))

    run_skipping(body())
    assert max(running) == 1
    assert any(isinstance(event, Scraped) for instant in instants for event in instant.inputs)
    again = [action for actions in replay(instants, ControlPlaneManager()) for action in actions]
    assert len([action for action in again if isinstance(action, DispatchOne)]) == 5


MESSAGES: Any = ({"role": "user", "content": "one two"},)
