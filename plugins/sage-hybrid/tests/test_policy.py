"""The policy under floods, cancellations and dying engines: nothing is lost, nothing grows, and people are isolated."""

from __future__ import annotations

import random

import msgspec
import pytest
from sage_hybrid.policy import HybridSchedulingPolicy

from sage_core import SECOND, Capacity, Dispatch, EngineDown, Event, Finished, Scheduler, Withdrawn, Work
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
    return lanes + sent + sum(len(lane._overload) for lane in policy._lanes.values())


def test_a_flood_of_cancellations_leaves_nothing() -> None:
    policy, fleet = HybridSchedulingPolicy(), FakeFleet({"chat": {"none": 0}})
    policy.submit(work("stays"), fleet, SECOND)
    for n in range(20_000):
        flood = work(f"w{n}", deadline=2 * SECOND, tenant=f"t{n % 50}")
        policy.submit(flood, fleet, SECOND)
        policy.observe(Withdrawn(work=flood), SECOND)
    queues = policy._lanes["chat"].queues
    assert len(queues) == 1
    assert len(policy._lanes["chat"]._overload) == 1


@pytest.mark.parametrize(
    ("event", "left"),
    [
        (None, 2.0),
        (Finished(work=work("w0"), engine="gpu", tokens_in=150), 3.0),
        (EngineDown(engine="gpu", lane="chat"), 0.0),
        (EngineDown(engine="other", lane="chat"), 2.0),
    ],
)
def test_what_ended_is_settled_and_what_was_lost_is_given_back(event: Event | None, left: float) -> None:
    policy, fleet = HybridSchedulingPolicy(), FakeFleet({"chat": {"gpu": 1}})
    asked = msgspec.structs.replace(work("w0"), cost=2.0, tokens_in=100)
    policy.submit(asked, fleet, SECOND)
    assert isinstance(policy.next(fleet, SECOND), Dispatch)
    if isinstance(event, Finished):
        event = msgspec.structs.replace(event, work=asked)
    if event is not None:
        policy.observe(event, SECOND)
    assert policy._lanes["chat"].queues.queues["standard"]._counters.of("a") == left


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
