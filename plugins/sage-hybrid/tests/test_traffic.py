"""The policy under floods, cancellations and dying engines: nothing is lost, nothing grows, and people are isolated."""

from __future__ import annotations

import random

import pytest
from sage_hybrid.policy import HybridSchedulingPolicy

from sage_core import SECOND, Capacity, Dispatch, Scheduler, Withdrawn, Work
from sage_core.testing import Answer, BatchingModel, Call, FakeFleet, Simulation, arrivals, percentile

SMALL = BatchingModel(capacity=Capacity(sequences=4, prefill_tokens=4_096, kv_tokens=40_000))


def work(id: str, *, deadline: int | None = None, tenant: str = "a") -> Work:
    return Work(id=id, lane="chat", kind="embed", arrival=SECOND, deadline=deadline, tenant=tenant, cost=0.1)


@pytest.mark.parametrize("seed", range(5))
def test_works_and_credits_are_conserved(seed: int) -> None:
    rng = random.Random(seed)
    calls = [
        *arrivals("chat", 20, 10, seed=seed, tenant="a", ttft=1.0, tpot=0.05),
        *arrivals("plain", 20, 10, seed=seed, tenant="b", service_class="standard"),
        *arrivals("bulk", 40, 10, seed=seed, tenant="c", service_class="batch"),
        *arrivals("vectors", 20, 10, seed=seed, kind="embed", tokens_in=60),
    ]
    calls = [
        Call(
            **{name: getattr(call, name) for name in Call.__struct_fields__ if name != "gone"},
            gone=call.at + rng.random(),
        )
        if rng.random() < 0.3
        else call
        for call in calls
    ]
    simulation = Simulation(lambda name: HybridSchedulingPolicy(reserve=1, shed=20.0), [SMALL] * 3)
    simulation.submit(calls)
    for at in (2.0, 4.0, 4.0, 7.0):
        simulation.lose(at, f"modelled#{rng.randrange(1, 6)}")
    answers = simulation.run()
    assert sorted(each.call.id for each in answers) == sorted(call.id for call in calls)
    assert (simulation.manager.held, simulation.manager.faults) == (0, ())
    assert {"done", "cancelled"} <= {each.outcome for each in answers}
    policy = next(iter(simulation.manager.pools.values())).backlog.policy
    assert isinstance(policy, HybridSchedulingPolicy)
    assert kept(policy) == 0


def kept(policy: HybridSchedulingPolicy) -> int:
    """Works that the policy remembers."""
    lanes = sum(len(lane.queues) + len(lane._late) for lane in policy._lanes.values())
    sent = sum(map(len, policy._sent.values())) + sum(map(len, policy._release._batch.values()))
    return lanes + sent + sum(len(heap) for heaps in policy._overload._dear.values() for heap in heaps.values())


def test_a_flood_of_cancellations_leaves_nothing() -> None:
    policy, fleet = HybridSchedulingPolicy(), FakeFleet({"chat": {"none": 0}})
    policy.submit(work("stays"), fleet, SECOND)
    for n in range(20_000):
        flood = work(f"w{n}", deadline=2 * SECOND, tenant=f"t{n % 50}")
        policy.submit(flood, fleet, SECOND)
        policy.observe(Withdrawn(work=flood), SECOND)
    queues = policy._lanes["chat"].queues
    assert len(queues) == 1
    assert sum(queue.size for queue in queues.queues.values()) < 300
    assert sum(heap.size for heap in policy._overload._dear["chat"].values()) < 60


def test_one_call_puts_back_a_bounded_number_of_doomed_works() -> None:
    policy, fleet = HybridSchedulingPolicy(), FakeFleet({"chat": {"gpu": 1}})
    for n in range(200):
        policy.submit(work(f"w{n}", deadline=2 * SECOND), fleet, SECOND)
    assert isinstance(policy.next(fleet, 9 * SECOND), Dispatch)
    assert len(policy._lanes["chat"]._late) == 16


def test_counters_of_tenants_who_left_are_forgotten() -> None:
    policy, fleet = HybridSchedulingPolicy(), FakeFleet({"chat": {"gpu": 1}})
    for n in range(5_000):
        policy.submit(work(f"w{n}", tenant=f"t{n}"), fleet, SECOND)
        decision = policy.next(fleet, SECOND)
        assert isinstance(decision, Dispatch)
    counters = policy._lanes["chat"].queues.queues["standard"]._counters
    assert len(counters) <= 1_200


# ---------------------------------------------------------------- isolation


def isolation(make: type[Scheduler], seed: int, **options: float) -> tuple[float, list[Answer]]:
    """Interactive p99 of the first token beside ten times the load of batch, over that without; and the answers."""
    chat = arrivals("chat", 20, 10, seed=seed, tenant="chat", ttft=0.5, tpot=0.03)
    bulk = arrivals("bulk", 200, 10, seed=seed, tenant="bulk", service_class="batch")
    found = []
    for calls in (chat, [*chat, *bulk]):
        simulation = Simulation(lambda name: make(**options), [BatchingModel()] * 4)
        simulation.submit(calls)
        simulation.run()
        found.append([each for each in simulation.answers.values() if each.call.tenant == "chat"])
    alone, beside = (percentile([each.ttft or 99.0 for each in answers], 0.99) for answers in found)
    return beside / alone, found[1]


@pytest.mark.parametrize("seed", range(2))
def test_a_batch_tenant_at_ten_times_the_load_does_not_hurt_people(seed: int) -> None:
    ratio, answers = isolation(HybridSchedulingPolicy, seed)
    assert ratio <= 1.5
    assert all(each.met for each in answers)


def test_engines_closed_to_batch_keep_people_as_they_were() -> None:
    ratio, answers = isolation(HybridSchedulingPolicy, 1, reserve=1)
    assert ratio <= 1.2
    assert all(each.met for each in answers)


def test_what_fits_nowhere_is_passed_and_keeps_its_place() -> None:
    fleet = FakeFleet({"chat": {"gpu": 9}}, tokens={"gpu": 1_000})
    policy = HybridSchedulingPolicy()
    sizes = {"runs": 600, "large0": 900, "large1": 800, "large2": 700, "small": 300}
    for n, (id, tokens) in enumerate(sizes.items()):
        asked = Work(
            id=id, lane="chat", kind="generate", arrival=SECOND + n, tenant=id[:5], tokens_in=tokens, cost=0.01
        )
        policy.submit(asked, fleet, SECOND + n)
    sent = []
    for done in ("", "", "small", "runs", "large0", "large1"):
        if done:
            fleet.give_back(Work(id=done, lane="chat", kind="generate", arrival=0))
        decision = policy.next(fleet, 2 * SECOND)
        if isinstance(decision, Dispatch):
            fleet.take(decision.work, decision.place)
            sent.append(decision.work.id)
    assert sent == ["runs", "small", "large0", "large1", "large2"]
