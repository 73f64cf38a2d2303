"""Fair shares: the tenant who has been served least goes first."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from sage_policies.lanes import LOOK_AHEAD
from sage_policies.vtc import VirtualTokenCounter

from sage_core import SECOND, Capacity, Dispatch, EngineDown, Finished, Idle, Withdrawn, Work
from sage_core.testing import BatchingModel, Call, FakeFleet, Simulation

Make = Callable[..., Work]
Order = Callable[..., list[str]]


def test_two_tenants_take_turns_however_much_one_sends(work: Make, order: Order) -> None:
    many = [work(f"a{n}", tenant="a") for n in range(20)]
    few = [work(f"b{n}", at=1.001, tenant="b") for n in range(5)]
    done = order(VirtualTokenCounter(), *many, *few)
    assert [id[0] for id in done[:10]].count("b") in (4, 5)


def test_idle_time_is_not_saved_up(work: Make, order: Order) -> None:
    busy = [work(f"a{n}", tenant="a") for n in range(40)]
    back = [work(f"b{n}", at=3.0, tenant="b") for n in range(10)]
    done = order(VirtualTokenCounter(), *busy, *back)
    # From its return on it has half, not all.
    start = done.index("b0")
    assert 4 <= [id[0] for id in done[start : start + 10]].count("b") <= 6


def test_a_stranger_gains_nothing_on_one_who_was_served_while_nobody_waited(work: Make, order: Order) -> None:
    alone = [work(f"a{n}", at=1.0 + n, tenant="a") for n in range(50)]
    both = [work(f"{name}x{n}", at=60.0, tenant=name) for n in range(20) for name in "ba"]
    done = order(VirtualTokenCounter(), *alone, *both)
    assert 9 <= [id[0] for id in done[50:70]].count("b") <= 11


@pytest.mark.parametrize("engines", [1, 2])
def test_tenants_who_always_have_work_differ_by_a_bounded_number_of_tokens(engines: int) -> None:
    sizes = {"a": (400, 100), "b": (200, 150), "c": (100, 50)}
    calls = {
        f"{tenant}{n}": Call(id=f"{tenant}{n}", at=n / 100, tenant=tenant, tokens_in=read, tokens_out=written)
        for tenant, (read, written) in sizes.items()
        for n in range(600)
    }
    simulation = Simulation(
        lambda name: VirtualTokenCounter(), [BatchingModel(capacity=Capacity(sequences=4))] * engines
    )
    simulation.submit(calls.values())
    simulation.run(6.0)
    served, apart = dict.fromkeys(sizes, 0), 0
    for request, _ in simulation.dispatched:
        call = calls[request]
        served[call.tenant] += call.tokens_in + 2 * call.tokens_out
        apart = max(apart, max(served.values()) - min(served.values()))
    # At every moment: what the engines hold and one more, at the largest, however long it goes on.
    assert apart <= (4 * engines + 1) * 600
    assert sum(served.values()) > 10 * apart
    assert min(served.values()) > 0.3 * sum(served.values())


def test_a_charge_is_settled_by_what_it_took_and_taken_back_with_its_engine(work: Make) -> None:
    policy, fleet = VirtualTokenCounter(), FakeFleet({"chat": {"gpu": 4}})
    counters = []
    for event in (
        None,
        Finished(work=work("w0"), engine="gpu", tokens_in=300, tokens_out=10),
        Finished(work=work("w0"), engine="gpu", tokens_in=300, cached=300),
        EngineDown(engine="gpu", lane="chat"),
    ):
        policy = VirtualTokenCounter()
        for number in range(2):
            policy.submit(work(f"w{number}"), fleet, SECOND)
        assert isinstance(policy.next(fleet, SECOND), Dispatch)
        if event is not None:
            policy.observe(event, SECOND)
        counters.append(policy._lanes["chat"].counters["a"])
    assert counters == [100.0, 320.0, 0.0, 0.0]


def test_a_large_work_does_not_hold_up_its_tenants_small_ones() -> None:
    fleet, policy = FakeFleet({"chat": {"gpu": 9}}, tokens={"gpu": 1_000}), VirtualTokenCounter()
    sizes = {"runs": 600, **{f"large{n}": 900 - n for n in range(LOOK_AHEAD - 1)}, "small": 300}
    for n, (id, tokens) in enumerate(sizes.items()):
        policy.submit(
            Work(id=id, lane="chat", kind="generate", arrival=SECOND + n, tokens_in=tokens), fleet, SECOND + n
        )
    sent = []
    while isinstance(decision := policy.next(fleet, 2 * SECOND), Dispatch):
        fleet.take(decision.work, decision.place)
        sent.append(decision.work.id)
    assert sent == ["runs", "small"]
    # What was passed keeps its place.
    fleet.give_back(Work(id="runs", lane="chat", kind="generate", arrival=0))
    fleet.give_back(Work(id="small", lane="chat", kind="generate", arrival=0))
    decision = policy.next(fleet, 2 * SECOND)
    assert isinstance(decision, Dispatch)
    assert decision.work.id == "large0"


def test_a_bounded_number_is_passed() -> None:
    fleet, policy = FakeFleet({"chat": {"gpu": 9}}, tokens={"gpu": 100}), VirtualTokenCounter()
    for n in range(LOOK_AHEAD):
        large = Work(id=f"l{n}", lane="chat", kind="generate", arrival=n, tokens_in=200 - n, tenant=f"t{n % 3}")
        policy.submit(large, fleet, SECOND)
    policy.submit(Work(id="small", lane="chat", kind="generate", arrival=99, tokens_in=1, tenant="t9"), fleet, SECOND)
    assert policy.next(fleet, SECOND) == Idle()


def test_heaps_do_not_grow_with_floods_of_cancellations(work: Make) -> None:
    policy, fleet = VirtualTokenCounter(), FakeFleet({"chat": {"none": 0}})
    for n in range(20_000):
        flood = work(f"w{n}", tenant=f"t{n % 50}")
        policy.submit(flood, fleet, SECOND)
        policy.observe(Withdrawn(work=flood), SECOND)
    lane = policy._lanes["chat"]
    assert (len(lane.queues), len(lane.heap) < 300) == (0, True)


def test_the_same_traffic_gives_the_same_decisions() -> None:
    def run() -> list[tuple[str, str]]:
        simulation = Simulation(lambda name: VirtualTokenCounter(), [BatchingModel(capacity=Capacity(sequences=2))] * 2)
        simulation.submit(Call(id=f"c{n}", at=0.01 * n, tenant=f"t{n % 7}", tokens_in=50 + n) for n in range(300))
        simulation.run()
        assert simulation.manager.held == 0
        return simulation.dispatched

    assert run() == run()
