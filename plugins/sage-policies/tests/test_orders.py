"""What each scheduler promises, read from the order of its dispatches."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from sage_policies.adaptive import Adaptive
from sage_policies.cost_optimized import CostOptimized
from sage_policies.lanes import LaneScheduler
from sage_policies.sjf import ShortestFirst
from sage_policies.slo_aware import SloAware
from sage_policies.vtc import VirtualTokenCounter

from sage_core import SECOND, Capacity, Dispatch, Idle, Scheduler, Withdrawn, Work
from sage_core.testing import BatchingModel, Call, FakeFleet, Simulation, drive

ONE = {"chat": {"gpu": 1}}


def work(id: str, *, at: float = 1.0, cost: float = 0.1, deadline: float | None = None, tenant: str = "a") -> Work:
    due = None if deadline is None else round(deadline * SECOND)
    arrival = round(at * SECOND)
    return Work(
        id=id, lane="chat", kind="embed", arrival=arrival, deadline=due, cost=cost, tenant=tenant, tokens_in=100
    )


def order(policy: Scheduler, *works: Work) -> list[str]:
    return drive(policy, FakeFleet(ONE), works).dispatched


class TestSloAware:
    def test_the_earliest_deadline_goes_first(self) -> None:
        works = [work("first"), *(work(f"due{n}", at=1.01, deadline=n) for n in (9, 5, 7))]
        assert order(SloAware(), *works) == ["first", "due5", "due7", "due9"]

    def test_what_cannot_be_met_goes_behind_what_can(self) -> None:
        works = [work("first", cost=1.0), work("lost", at=1.1, deadline=1.5), work("met", at=1.2, deadline=4.0)]
        assert order(SloAware(), *works) == ["first", "met", "lost"]

    def test_what_is_late_is_overtaken_only_by_what_arrives_within_the_bound(self) -> None:
        steady = [work(f"n{n}", at=1.2 + 0.1 * n, deadline=2.0 + 0.1 * n) for n in range(60)]
        done = order(SloAware(aging=3.0), work("first", cost=1.0), work("lost", at=1.1, deadline=1.5), *steady)
        before = done[: done.index("lost")]
        # Those due within 3 s of its arrival, and no others.
        assert 20 <= len(before) <= 34

    def test_one_call_puts_back_a_bounded_number(self) -> None:
        policy, fleet = SloAware(), FakeFleet(ONE)
        for n in range(200):
            policy.submit(work(f"lost{n}", deadline=1.1), fleet, SECOND)
        assert isinstance(policy.next(fleet, 10 * SECOND), Dispatch)
        assert len(policy._late) == 32


class TestShortestFirst:
    def test_the_smallest_goes_first(self) -> None:
        works = [work("first"), *(work(f"s{n}", at=1.01, cost=n / 10) for n in (9, 5, 7))]
        assert order(ShortestFirst(), *works) == ["first", "s5", "s7", "s9"]

    def test_a_long_one_waits_for_the_bound_and_no_longer(self) -> None:
        steady = [work(f"n{n}", at=1.05 + 0.1 * n) for n in range(60)]
        done = order(ShortestFirst(aging=2.0), work("first"), work("long", at=1.01, cost=5.0), *steady)
        assert 19 <= done.index("long") <= 22


class TestCostOptimized:
    ENGINES = (BatchingModel(price=8.0), BatchingModel(price=1.0))

    def sent(self, calls: list[Call]) -> list[str]:
        simulation = Simulation(lambda name: CostOptimized(), self.ENGINES)
        simulation.submit(calls)
        simulation.run()
        return [engine for _, engine in simulation.dispatched]

    def test_the_cheap_engine_is_taken_while_it_is_in_time(self) -> None:
        assert self.sent([Call(id=f"c{n}", at=n * 5.0, ttft=2.0) for n in range(4)]) == ["modelled#2"] * 4

    def test_the_dear_one_takes_what_the_cheap_one_would_make_late(self) -> None:
        calls = [Call(id="long", at=0.0, tokens_in=3_900), Call(id="urgent", at=0.001, tokens_in=100, ttft=0.2)]
        assert self.sent(calls) == ["modelled#2", "modelled#1"]


class TestAdaptive:
    def test_it_orders_by_arrival_while_it_keeps_up(self) -> None:
        works = [work("first"), work("long", at=1.01, cost=0.3), work("short", at=1.02, cost=0.1)]
        assert order(Adaptive(), *works) == ["first", "long", "short"]

    def test_it_takes_the_shortest_first_when_it_does_not(self) -> None:
        burst = [work(f"n{n}", at=1.02, cost=0.5) for n in range(9)]
        done = order(Adaptive(), work("first"), work("long", at=1.01, cost=3.0), *burst)
        # The drain of the fake fleet is one engine-second a second: back to arrival below half a second.
        assert done[-1] == "long"

    def test_it_does_not_waver_between_its_thresholds(self) -> None:
        policy, fleet = Adaptive(high=2.0, low=0.5), FakeFleet(ONE)
        policy.submit(work("old", cost=0.9), fleet, SECOND)
        policy.submit(work("young", at=2.0, cost=0.1), fleet, 2 * SECOND)
        decision = policy.next(fleet, 2 * SECOND)
        assert isinstance(decision, Dispatch)
        assert (decision.work.id, decision.why) == ("old", "by arrival")


class TestVirtualTokenCounter:
    def test_two_tenants_take_turns_however_much_one_sends(self) -> None:
        many = [work(f"a{n}", tenant="a") for n in range(20)]
        few = [work(f"b{n}", at=1.001, tenant="b") for n in range(5)]
        done = order(VirtualTokenCounter(), *many, *few)
        assert [id[0] for id in done[:10]].count("b") in (4, 5)

    def test_idle_time_is_not_saved_up(self) -> None:
        busy = [work(f"a{n}", tenant="a") for n in range(40)]
        back = [work(f"b{n}", at=3.0, tenant="b") for n in range(10)]
        done = order(VirtualTokenCounter(), *busy, *back)
        # From its return on it has half, not all.
        start = done.index("b0")
        assert 4 <= [id[0] for id in done[start : start + 10]].count("b") <= 6

    def test_heaps_do_not_grow_with_floods_of_cancellations(self) -> None:
        policy, fleet = VirtualTokenCounter(), FakeFleet({"chat": {"none": 0}})
        for n in range(20_000):
            flood = work(f"w{n}", tenant=f"t{n % 50}")
            policy.submit(flood, fleet, SECOND)
            policy.observe(Withdrawn(work=flood), SECOND)
        lane = policy._lanes["chat"]
        assert (len(lane.queues), len(lane.heap) < 300) == (0, True)


@pytest.mark.parametrize("make", [SloAware, ShortestFirst, CostOptimized, Adaptive])
def test_a_flood_of_cancellations_leaves_nothing(make: Callable[[], LaneScheduler]) -> None:
    policy, fleet = make(), FakeFleet({"chat": {"none": 0}})
    policy.submit(work("stays"), fleet, SECOND)
    for n in range(20_000):
        flood = work(f"w{n}", deadline=3.0)
        policy.submit(flood, fleet, SECOND)
        policy.observe(Withdrawn(work=flood), SECOND)
    queue = policy._lanes["chat"]
    assert len(queue.ranked) == 1
    assert queue.ranked.size + queue.arrived.size < 60


def test_what_fits_nowhere_does_not_hold_up_what_does() -> None:
    fleet = FakeFleet({"chat": {"gpu": 2}}, tokens={"gpu": 150})
    policy = ShortestFirst()
    kinds = {"kind": "generate", "lane": "chat", "arrival": SECOND}
    for id, tokens, cost in (("runs", 100, 0.1), ("large", 100, 0.2), ("small", 50, 0.3)):
        policy.submit(Work(id=id, tokens_in=tokens, cost=cost, **kinds), fleet, SECOND)  # type: ignore[arg-type]
    sent = []
    while not isinstance(decision := policy.next(fleet, SECOND), Idle):
        assert isinstance(decision, Dispatch)
        fleet.take(decision.work, decision.place)
        sent.append(decision.work.id)
    assert sent == ["runs", "small"]


def test_the_same_traffic_gives_the_same_decisions() -> None:
    def run() -> list[tuple[str, str]]:
        simulation = Simulation(lambda name: VirtualTokenCounter(), [BatchingModel(capacity=Capacity(sequences=2))] * 2)
        simulation.submit(Call(id=f"c{n}", at=0.01 * n, tenant=f"t{n % 7}", tokens_in=50 + n) for n in range(300))
        simulation.run()
        assert simulation.manager.held == 0
        return simulation.dispatched

    assert run() == run()
