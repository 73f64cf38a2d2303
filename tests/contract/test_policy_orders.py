"""The same load under fifo, priority and hybrid: the decision log shows the order that each promises."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from sage_hybrid.policy import HybridSchedulingPolicy
from sage_policies.slo_aware import SloAware

from sage_core import SECOND, Capacity, KeyedScheduler, QueueLimits, Scheduler
from sage_core.builtins import HEAD_START, Fifo, Priority
from sage_core.common.policies import scheduler_named
from sage_core.common.registry import Registry
from sage_core.testing import BatchingModel, Call, Simulation, arrivals, schedulers_named

#: One call at a time, so that the order of dispatches is the order of decisions.
ONE = BatchingModel(capacity=Capacity(sequences=1))


def load() -> list[Call]:
    """Three classes with targets and priorities of their own, faster than one engine serves them."""
    return [
        *arrivals("chat", 20, 1, tokens_out=40, ttft=60.0, priority=1),
        *arrivals("plain", 20, 1, tokens_out=40, service_class="standard"),
        *arrivals("bulk", 20, 1, tokens_out=40, service_class="batch", priority=-1),
    ]


def decided(policy: Scheduler, since: float = 0.0) -> list[Call]:
    """The calls in the order in which the decision log says they were sent, from a time on."""
    calls = {call.id: call for call in load()}
    simulation = Simulation(lambda name: policy, [ONE])
    simulation.submit(calls.values())
    simulation.run()
    assert (simulation.manager.held, simulation.manager.faults) == (0, ())
    log = [(calls[line.request].at + line.wait / 1e9, calls[line.request]) for line in simulation.decisions]
    assert len(log) == len(calls)
    return [call for at, call in sorted(log, key=lambda each: each[0]) if at >= since]


def test_fifo_sends_by_arrival() -> None:
    order = decided(KeyedScheduler(Fifo()))
    assert order == sorted(order, key=lambda call: call.at)


def test_priority_sends_by_arrival_less_the_head_start() -> None:
    order = decided(KeyedScheduler(Priority()), since=1.0)
    assert order == sorted(order, key=lambda call: call.at - call.priority * HEAD_START / 1e9)
    assert [call.priority for call in order] == sorted((call.priority for call in order), reverse=True)
    assert {call.priority for call in order} == {1, 0, -1}


def test_hybrid_sends_people_first_by_deadline_and_keeps_the_floors() -> None:
    order = decided(HybridSchedulingPolicy(), since=1.0)
    chats = [call for call in order if call.id.startswith("chat")]
    assert chats == sorted(chats, key=lambda call: call.at + (call.ttft or 0.0))
    last = max(order.index(call) for call in chats)
    before = [call.service_class for call in order[:last] if call.service_class != "interactive"]
    # The floors are a fifth and a twentieth of what people get.
    assert 0 < len(before) <= 0.5 * len(chats)
    assert "standard" in before


def test_each_promises_another_order() -> None:
    orders = [decided(KeyedScheduler(Fifo())), decided(KeyedScheduler(Priority())), decided(HybridSchedulingPolicy())]
    assert orders[0] != orders[1] != orders[2] != orders[0]


def test_a_switch_under_load_loses_nothing() -> None:
    made: dict[str, Callable[[], Scheduler]] = {
        "": lambda: KeyedScheduler(Fifo()),
        "hybrid": HybridSchedulingPolicy,
        "slo_aware": SloAware,
    }
    simulation = Simulation(lambda name: made[name](), [ONE] * 2)
    simulation.submit(load())
    for at, name in ((5.0, "hybrid"), (10.0, "slo_aware"), (15.0, "hybrid"), (20.0, "")):
        simulation.switch(at, name)
    answers = simulation.run()
    assert sorted(each.call.id for each in answers) == sorted(call.id for call in load())
    assert {each.outcome for each in answers} == {"done"}
    assert {line.policy for line in simulation.decisions} == {"", "hybrid", "slo_aware"}


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize(
    "policy", ["fifo", "priority", "slo_aware", "sjf", "cost_optimized", "adaptive", "vtc", "hybrid", "hybrid?shed=60"]
)
def test_under_every_policy_nothing_waits_longer_than_its_pool_allows(policy: str, seed: int) -> None:
    limit = 4.0
    calls = [
        *arrivals("chat", 12, 10, seed=seed, ttft=1.0, priority=1),
        *arrivals("bulk", 12, 10, seed=seed, service_class="batch", priority=-1, tenant="bulk"),
    ]
    model = BatchingModel(capacity=Capacity(sequences=4, prefill_tokens=4_096, kv_tokens=20_000))
    limits = QueueLimits(wait=round(limit * SECOND))
    simulation = Simulation(schedulers_named(policy), [model], queue=limits)
    simulation.submit(calls)
    answers = simulation.run()
    assert (simulation.manager.held, simulation.manager.faults) == (0, ())
    assert {each.outcome for each in answers} == {"done", "shed"}
    for each in answers:
        assert (each.wait if each.outcome == "done" else each.total or 0.0) <= limit  # type: ignore[operator]
        assert each.outcome == "done" or (each.retry_after or 0.0) >= 1.0


@pytest.mark.parametrize("option", ["release", "order", "allocate", "place", "overload"])
def test_parts_are_switched_off_by_name(option: str) -> None:
    registry = Registry("scheduler")
    registry.add("sage-hybrid", {"hybrid": "sage_hybrid.policy:HybridSchedulingPolicy"})
    whole, without = scheduler_named("hybrid", registry), scheduler_named(f"hybrid?{option}=off", registry)
    assert isinstance(whole, HybridSchedulingPolicy)
    assert isinstance(without, HybridSchedulingPolicy)
