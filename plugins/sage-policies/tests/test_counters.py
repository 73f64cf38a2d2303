"""What each tenant of a lane was served."""

from __future__ import annotations

import random

import pytest
from sage_policies.counters import Counters

from sage_core import Work


def queue(counters: Counters, tenant: str) -> None:
    waits = counters.queues.get(tenant) or counters.returns(tenant)
    waits.push(Work(id=f"{tenant}{len(waits)}", lane="chat", kind="embed", arrival=0), 0.0)


@pytest.mark.parametrize("seed", range(10))
def test_the_least_is_the_least_of_those_who_wait(seed: int) -> None:
    rng, counters = random.Random(seed), Counters()
    for _ in range(500):
        tenant = f"t{rng.randrange(20)}"
        if rng.random() < 0.3:
            queue(counters, tenant)
        elif rng.random() < 0.3 and tenant in counters.queues:
            counters.leaves(tenant)
        else:
            counters.charge(tenant, rng.uniform(-1.0, 3.0))
        assert counters.least() == min((counters.counters[name] for name in counters.queues), default=None)
        assert all(count >= 0.0 for count in counters.counters.values())
        assert len(counters.heap) <= 4 * 20 + 64


def test_who_returns_is_lifted_to_the_least_who_waits_or_to_who_left_last() -> None:
    counters = Counters()
    queue(counters, "a")
    counters.charge("a", 7.0)
    queue(counters, "b")
    assert counters.counters["b"] == 7.0
    counters.charge("b", 2.0)
    counters.leaves("a")
    counters.leaves("b")
    queue(counters, "c")
    assert counters.counters["c"] == 9.0


def test_of_many_who_left_those_served_least_are_forgotten() -> None:
    counters = Counters()
    for number in range(5_000):
        queue(counters, f"t{number}")
        counters.charge(f"t{number}", 1.0)
        counters.leaves(f"t{number}")
    assert len(counters.counters) <= 1_100
    assert "t4999" in counters.counters
