"""The earliest deadline first, without spending engines on deadlines that cannot be met."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest
from sage_policies.slo_aware import PURGED_AT_ONCE, SloAware

from sage_core import SECOND, Dispatch, Place, Work
from sage_core.testing import FakeFleet

Make = Callable[..., Work]
Order = Callable[..., list[str]]


def test_the_earliest_deadline_goes_first(work: Make, order: Order) -> None:
    works = [work("first"), *(work(f"due{n}", at=1.01, deadline=n) for n in (9, 5, 7))]
    assert order(SloAware(), *works) == ["first", "due5", "due7", "due9"]


def test_what_cannot_be_met_goes_behind_what_can(work: Make, order: Order) -> None:
    works = [work("first", cost=1.0), work("lost", at=1.1, deadline=1.5), work("met", at=1.2, deadline=4.0)]
    assert order(SloAware(), *works) == ["first", "met", "lost"]


def test_what_is_doomed_though_not_lost_goes_behind_too(work: Make, order: Order) -> None:
    works = [
        work("first", cost=1.0),
        work("doomed", at=1.1, deadline=2.5, cost=0.9),
        work("met", at=1.2, deadline=4.0, cost=0.9),
    ]
    assert order(SloAware(), *works) == ["first", "met", "doomed"]


@pytest.mark.parametrize("seed", range(10))
def test_where_all_can_be_met_all_are_met(work: Make, seed: int) -> None:
    """Of works without interruption that arrive at once, the order by deadline meets all if any order does."""
    rng = random.Random(seed)
    at, works = 1.0, []
    for number in range(40):
        at += (cost := rng.uniform(0.01, 0.2))
        works.append(work(f"w{number}", deadline=at + rng.uniform(0.0, 0.001), cost=cost))
    rng.shuffle(works)
    policy, fleet = SloAware(), FakeFleet({"chat": {"gpu": 1}})
    for each in works:
        policy.submit(each, fleet, SECOND)
    now = SECOND
    for _ in works:
        decision = policy.next(fleet, now)
        assert isinstance(decision, Dispatch)
        assert decision.why == "deadline"
        now += round(decision.work.cost * SECOND)
        assert now <= (decision.work.deadline or 0) + 1


@pytest.mark.parametrize("seed", range(10))
def test_a_work_is_overtaken_only_by_what_arrives_within_the_bound(work: Make, order: Order, seed: int) -> None:
    rng = random.Random(seed)
    works = [
        work(f"w{n}", at=1.0 + n / 10, deadline=rng.choice((None, 1.0 + n / 10 + rng.uniform(0.05, 1.9))), cost=0.12)
        for n in range(120)
    ]
    arrival = {each.id: each.arrival for each in works}
    done = order(SloAware(aging=2.0), *works)
    assert sorted(done) == sorted(arrival)
    for place, id in enumerate(done):
        # Deadlines lie within the bound, so nothing that arrives 2 s later has an earlier one.
        assert all(arrival[before] <= arrival[id] + 2 * SECOND for before in done[:place])


def test_one_call_puts_back_a_bounded_number(work: Make) -> None:
    policy, fleet = SloAware(), FakeFleet({"chat": {"gpu": 1}})
    for n in range(200):
        policy.submit(work(f"lost{n}", deadline=1.1), fleet, SECOND)
    assert isinstance(policy.next(fleet, 10 * SECOND), Dispatch)
    assert len(policy._late) == PURGED_AT_ONCE


class Uneven(FakeFleet):
    """A slow engine and a quick one."""

    def cost(self, work: Work, place: Place | None = None) -> float:
        return 5.0 if place is not None and place.engine == "slow" else 0.1


def test_what_the_selector_would_send_to_a_slow_engine_goes_to_one_in_time(work: Make) -> None:
    policy, fleet = SloAware(), Uneven({"chat": {"slow": 4, "quick": 4}})
    fleet.take(work("runs"), fleet._place("quick"))
    policy.submit(work("hurry", deadline=3.0), fleet, SECOND)
    decision = policy.next(fleet, SECOND)
    assert isinstance(decision, Dispatch)
    assert (decision.place.engine, decision.why) == ("quick", "deadline")


def test_a_late_work_that_comes_back_is_judged_anew(work: Make) -> None:
    policy, fleet = SloAware(), FakeFleet({"chat": {"gpu": 1}})
    policy.submit(work("w", deadline=1.1), fleet, SECOND)
    late = policy.next(fleet, 9 * SECOND)
    assert isinstance(late, Dispatch)
    assert late.why == "late"
    policy.submit(work("w", deadline=20.0), fleet, 9 * SECOND)
    again = policy.next(fleet, 9 * SECOND)
    assert isinstance(again, Dispatch)
    assert again.why == "deadline"
