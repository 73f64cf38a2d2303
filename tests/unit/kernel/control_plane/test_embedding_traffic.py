"""Embedding under traffic: what a giant request does to a query, and how full the batches of many small ones are."""

from __future__ import annotations

import asyncio
from itertools import count

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import sage_core.testing.engines as fake
from sage_core.builtins import Fifo, Priority
from sage_core.common.clock import MILLISECOND
from sage_core.common.host import Host
from sage_core.common.policies import KeyedScheduler
from sage_core.common.records import Caller, Capacity, ModelSpec, PoolSpec, QueueLimits, Request, Work
from sage_core.kernel.control_plane.driver import Driver
from sage_core.kernel.control_plane.events import Decided, DispatchBatch, End, Outline, PoolSet, StartEngine, lane_of
from sage_core.kernel.control_plane.manager import ControlPlaneManager
from sage_core.kernel.control_plane.pools import Policies
from sage_core.testing.engines import FakeEngine
from sage_core.testing.virtual import EngineModel, VirtualDriver

GIANT = 2_048
#: 16 texts of 62 tokens fill a batch.
SMALL = Capacity(batch_tokens=1_024, batch_rows=256)
BATCH, ROW = 2 * MILLISECOND, MILLISECOND
SLICE = BATCH + 16 * ROW


class EarliestDeadline:
    """A deadline first; without one last."""

    def rank(self, work: Work) -> float:
        return float(work.deadline) if work.deadline is not None else 1e18


POLICIES: dict[str, Policies] = {
    "the default, fifo": lambda name: KeyedScheduler(Fifo()),
    "priority": lambda name: KeyedScheduler(Priority()),
    "earliest deadline": lambda name: KeyedScheduler(EarliestDeadline()),
}


def outline(name: str, texts: int, caller: Caller = Caller()) -> Outline:
    keys = tuple(f"{name} {number}" for number in range(texts))
    return Outline(id=name, kind="embed", model="m", lane="m", caller=caller, sizes=(240,) * texts, keys=keys)


def traffic(policies: Policies, at: list[int], engines: int = 1) -> VirtualDriver:
    """A giant request at 0, and a query at each of these times."""
    model = EngineModel(capacity=Capacity(batch_tokens=1_024, sequences=engines), batch=BATCH, row=ROW)
    driver = VirtualDriver(ControlPlaneManager(policies), model)
    driver.submit(0, outline("giant", GIANT, Caller(service_class="batch")))
    for number, moment in enumerate(at):
        query = Caller(service_class="interactive", remaining=500 * MILLISECOND, priority=1)
        driver.submit(moment, outline(f"query {number}", 1, query))
    driver.advance()
    return driver


def dispatched(driver: VirtualDriver) -> dict[str, int]:
    """When each request was first dispatched."""
    found: dict[str, int] = {}
    for now, action in driver.actions:
        if isinstance(action, DispatchBatch):
            for request, _ in action.rows:
                found.setdefault(request, now)
    return found


def ended(driver: VirtualDriver) -> dict[str, int]:
    return {action.request: now for now, action in driver.actions if isinstance(action, End)}


@pytest.mark.parametrize("policy", POLICIES)
@given(at=st.lists(st.integers(1, 2_000 * MILLISECOND), min_size=1, max_size=6, unique=True))
@settings(max_examples=15, deadline=None)
def test_a_query_waits_for_one_slice_of_a_giant_request_at_most(policy: str, at: list[int]) -> None:
    driver = traffic(POLICIES[policy], at)
    first = dispatched(driver)
    for number, moment in enumerate(at):
        # Other queries that came before it may be in front of it, each in a batch of its own at worst.
        others = sum(1 for other in at if other < moment and ended(driver)[f"query {at.index(other)}"] > moment)
        assert first[f"query {number}"] - moment <= SLICE + others * (BATCH + ROW)
    assert ended(driver).keys() == {"giant", *(f"query {number}" for number in range(len(at)))}
    assert driver.manager.held == 0


def test_the_slices_of_a_giant_request_are_never_further_ahead_than_the_engines_can_compute() -> None:
    driver = traffic(POLICIES["the default, fifo"], [100 * MILLISECOND + 1], engines=4)
    assert dispatched(driver)["query 0"] - 100 * MILLISECOND <= SLICE


@pytest.mark.parametrize("engines", [1, 2, 4])
def test_a_giant_request_alone_keeps_every_seat_busy(engines: int) -> None:
    driver = traffic(POLICIES["the default, fifo"], [], engines)
    batches = [len(action.rows) for _, action in driver.actions if isinstance(action, DispatchBatch)]
    assert batches == [16] * (GIANT // 16)
    assert ended(driver)["giant"] <= GIANT // 16 * SLICE / engines + SLICE


def test_two_giant_requests_take_turns() -> None:
    driver = VirtualDriver(ControlPlaneManager(), EngineModel(capacity=SMALL, batch=BATCH, row=ROW))
    for name in ("one", "two"):
        driver.submit(0, outline(name, 160))
    driver.advance()
    order = [action.rows[0][0] for _, action in driver.actions if isinstance(action, DispatchBatch)]
    assert order == ["one", "two"] * 10


def test_a_query_for_a_text_of_a_giant_request_does_not_wait_for_the_rest_of_it() -> None:
    driver = VirtualDriver(ControlPlaneManager(), EngineModel(capacity=SMALL, batch=BATCH, row=ROW))
    giant = outline("giant", GIANT)
    driver.submit(0, giant)
    last = Outline(id="q", kind="embed", model="m", lane="m", caller=Caller(), sizes=(240,), keys=giant.keys[-1:])
    driver.submit(1, last)
    driver.advance()
    assert ended(driver)["q"] <= 2 * SLICE
    rows = [row for _, action in driver.actions if isinstance(action, DispatchBatch) for row in action.rows]
    assert len(rows) == GIANT, "the text is computed once"


def test_a_cancelled_giant_request_leaves_nothing_behind() -> None:
    driver = VirtualDriver(ControlPlaneManager(), EngineModel(capacity=SMALL, batch=BATCH, row=ROW))
    driver.submit(0, outline("giant", GIANT))
    driver.cancel(100 * MILLISECOND, "giant")
    driver.advance()
    computed = sum(len(action.rows) for _, action in driver.actions if isinstance(action, DispatchBatch))
    assert computed <= 100 * MILLISECOND // SLICE * 16 + 16
    assert driver.manager.held == 0


def test_what_is_held_back_opens_further_engines() -> None:
    manager = ControlPlaneManager()
    driver = VirtualDriver(manager, EngineModel(capacity=SMALL, batch=BATCH, row=ROW))
    manager.step([PoolSet(pool=PoolSpec(lane="m", model="m", members=2))], 0)
    driver.submit(0, outline("giant", GIANT))
    driver.advance()
    assert sum(isinstance(action, StartEngine) for _, action in driver.actions) == 2


def test_what_is_held_back_counts_in_when_to_come_back() -> None:
    def told(giant: int) -> float:
        manager = ControlPlaneManager()
        manager.step([PoolSet(pool=PoolSpec(lane="m", model="m", queue=QueueLimits(requests=1)))], 0)
        driver = VirtualDriver(manager, EngineModel(capacity=SMALL, batch=BATCH, row=ROW))
        driver.submit(0, outline("giant", giant))
        # One waits behind the slice in the engine, and one more is too many.
        driver.submit(1_000 * MILLISECOND, outline("one", 40))
        driver.submit(1_000 * MILLISECOND, outline("two", 40))
        driver.advance()
        (refused,) = [end for _, end in driver.actions if isinstance(end, End) and end.outcome == "rejected"]
        assert refused.retry_after is not None
        return refused.retry_after

    assert told(8_192) > told(1_024)


def test_64_clients_with_one_short_text_each_share_batches() -> None:
    # An engine that takes 4 ms and 0.1 ms a text, as a small CPU embedder does.
    spec = ModelSpec(name="m", backend="fake", options={"batch_seconds": 0.004, "row_seconds": 0.0001})
    lines: list[Decided] = []
    numbers = count()

    async def client(driver: Driver, name: int) -> None:
        for turn in range(10):
            text = f"client {name} asks {turn}"
            await driver.ask(Request(id=f"r{next(numbers)}", kind="embed", model="m", texts=(text,)), spec)

    async def main() -> list[int]:
        sink = lambda decisions: lines.extend(line for _, line in decisions)  # noqa: E731
        async with Driver(ControlPlaneManager(), Host({"fake": fake}).backends, sink=sink) as driver:
            async with asyncio.TaskGroup() as tasks:
                for name in range(64):
                    tasks.create_task(client(driver, name))
            info = driver.pools.info(lane_of(spec))
            assert info is not None
            engine = driver.pools.engine(info.id)
            assert isinstance(engine, FakeEngine)
            return [len(batch) for batch in engine.batches]

    batches = asyncio.run(main())
    assert sum(batches) == len(lines) == 640
    assert 640 / len(batches) >= 8
