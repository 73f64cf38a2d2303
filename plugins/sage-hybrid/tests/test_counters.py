"""What each tenant was served."""

from __future__ import annotations

from sage_hybrid.counters import Counters


def test_it_counts_up_and_down_but_never_below_nothing() -> None:
    counters = Counters()
    counters.charge("a", 2.0)
    counters.charge("a", -0.5)
    counters.charge("b", -3.0)
    assert (counters.of("a"), counters.of("b"), counters.of("stranger")) == (1.5, 0.0, 0.0)


def test_who_returns_is_lifted_to_the_least_of_those_who_wait() -> None:
    counters = Counters()
    counters.charge("waits", 5.0)
    counters.charge("ahead", 9.0)
    for tenant in ("stranger", "ahead"):
        counters.returns(tenant, "waits")
    assert (counters.of("stranger"), counters.of("ahead")) == (5.0, 9.0)


def test_where_nobody_waits_who_returns_is_lifted_to_who_left_last() -> None:
    counters = Counters()
    counters.charge("works", 100.0)
    counters.leaves("works", (), 0)
    counters.returns("stranger", None)
    assert counters.of("stranger") == 100.0


def test_of_many_who_left_those_served_least_are_forgotten() -> None:
    counters = Counters()
    for number in range(5_000):
        counters.charge(f"t{number}", float(number))
        counters.leaves(f"t{number}", ("t7",), 1)
    assert len(counters) <= 1_100
    assert (counters.of("t4999"), counters.of("t7"), counters.of("t8")) == (4_999.0, 7.0, 0.0)
