"""What the ordered policies share: nothing is lost, nothing grows, and overtaking has a bound."""

from __future__ import annotations

import random
from collections.abc import Callable
from functools import partial

import pytest
from sage_policies.adaptive import Adaptive
from sage_policies.cost_optimized import CostOptimized
from sage_policies.lanes import LOOK_AHEAD, LaneScheduler, smaller
from sage_policies.sjf import ShortestFirst
from sage_policies.slo_aware import SloAware

from sage_core import SECOND, Dispatch, Idle, Withdrawn, Work
from sage_core.testing import FakeFleet, drive

Make = Callable[..., Work]
ORDERED = [SloAware, ShortestFirst, CostOptimized, Adaptive]


@pytest.mark.parametrize("make", ORDERED)
def test_a_flood_of_cancellations_leaves_nothing(make: Callable[[], LaneScheduler], work: Make) -> None:
    policy, fleet = make(), FakeFleet({"chat": {"none": 0}})
    policy.submit(work("stays"), fleet, SECOND)
    for n in range(20_000):
        flood = work(f"w{n}", deadline=3.0)
        policy.submit(flood, fleet, SECOND)
        policy.observe(Withdrawn(work=flood), SECOND)
    queue = policy._lanes["chat"]
    assert len(queue.ranked) == 1
    assert queue.ranked.size + queue.arrived.size < 60


def generated(id: str, tokens: int, cost: float, at: int = SECOND) -> Work:
    return Work(id=id, lane="chat", kind="generate", arrival=at, tokens_in=tokens, cost=cost)


def test_what_fits_nowhere_does_not_hold_up_what_does() -> None:
    fleet, policy = FakeFleet({"chat": {"gpu": 2}}, tokens={"gpu": 150}), ShortestFirst()
    for id, tokens, cost in (("runs", 100, 0.1), ("large", 100, 0.2), ("small", 50, 0.3)):
        policy.submit(generated(id, tokens, cost), fleet, SECOND)
    sent = []
    while not isinstance(decision := policy.next(fleet, SECOND), Idle):
        assert isinstance(decision, Dispatch)
        fleet.take(decision.work, decision.place)
        sent.append(decision.work.id)
    assert sent == ["runs", "small"]


def test_a_bounded_number_is_passed() -> None:
    fleet, policy = FakeFleet({"chat": {"gpu": 9}}, tokens={"gpu": 100}), ShortestFirst()
    for n in range(LOOK_AHEAD):
        policy.submit(generated(f"l{n}", 200 - n, 0.1), fleet, SECOND)
    policy.submit(generated("small", 1, 0.2), fleet, SECOND)
    assert policy.next(fleet, SECOND) == Idle()


def test_the_lane_that_waits_longest_goes_first() -> None:
    fleet, policy = FakeFleet({"a": {"x": 1}, "b": {"y": 1}}), ShortestFirst()
    for lane, at, cost in (("a", 2, 0.1), ("b", 1, 9.0)):
        policy.submit(Work(id=lane, lane=lane, kind="embed", arrival=at * SECOND, cost=cost), fleet, 2 * SECOND)
    decision = policy.next(fleet, 2 * SECOND)
    assert isinstance(decision, Dispatch)
    assert decision.work.id == "b"


def test_what_is_smaller_in_prompt_or_in_all_may_fit_where_another_does_not() -> None:
    large = generated("l", 100, 0.1)
    assert smaller(generated("s", 99, 0.1), large)
    assert not smaller(generated("s", 100, 0.1), large)
    # Of other kinds than texts that are written, tokens say nothing.
    assert smaller(Work(id="e", lane="chat", kind="embed", arrival=0, tokens_in=900), large)


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("make", [ShortestFirst, partial(Adaptive, high=0.2, low=0.1)])
def test_what_has_waited_for_the_bound_is_overtaken_by_nothing_younger(
    make: Callable[..., LaneScheduler], work: Make, seed: int
) -> None:
    rng = random.Random(seed)
    works = [work(f"w{n}", at=1.0 + n / 20, cost=rng.choice((0.01, 0.05, 0.3))) for n in range(150)]
    done = drive(make(aging=1.0), FakeFleet({"chat": {"gpu": 1}}), works)
    waiting = {each.id: each for each in works}
    overtaken = 0
    for now, decision in done.decisions:
        if isinstance(decision, Dispatch):
            del waiting[decision.work.id]
            older = [each for each in waiting.values() if each.arrival < decision.work.arrival]
            assert not [each for each in older if now - each.arrival >= SECOND]
            overtaken += len(older)
    assert overtaken
