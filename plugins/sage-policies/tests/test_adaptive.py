"""Two orders, and a stated rule that chooses between them by what is observed."""

from __future__ import annotations

from collections.abc import Callable

from sage_policies.adaptive import Adaptive

from sage_core import SECOND, Dispatch, Work
from sage_core.testing import FakeFleet

Make = Callable[..., Work]
Order = Callable[..., list[str]]


def test_it_orders_by_arrival_while_it_keeps_up(work: Make, order: Order) -> None:
    works = [work("first"), work("long", at=1.01, cost=0.3), work("short", at=1.02, cost=0.1)]
    assert order(Adaptive(), *works) == ["first", "long", "short"]


def test_it_takes_the_shortest_first_when_it_does_not(work: Make, order: Order) -> None:
    burst = [work(f"n{n}", at=1.02, cost=0.5) for n in range(9)]
    done = order(Adaptive(), work("first"), work("long", at=1.01, cost=3.0), *burst)
    # The drain of the fake fleet is one engine-second a second: back to arrival below half a second.
    assert done[-1] == "long"


def test_it_changes_at_its_two_thresholds_and_nowhere_between(work: Make) -> None:
    policy, fleet = Adaptive(high=2.0, low=0.5), FakeFleet({"chat": {"gpu": 1}})
    found = []
    waiting: list[Work] = []
    # One engine-second a second is finished, so what waits is the predicted wait.
    for number, cost in enumerate((0.4, 1.5, 0.3, 0.1, 0.05)):
        waiting.append(work(f"w{number}", at=1.0 + number, cost=cost))
        policy.submit(waiting[-1], fleet, SECOND)
    for _ in range(5):
        decision = policy.next(fleet, 6 * SECOND)
        assert isinstance(decision, Dispatch)
        found.append((decision.work.id, decision.why))
    # 2.35 s wait: the shortest first, down to below 0.5 s.
    assert found == [
        ("w4", "shortest first"),
        ("w3", "shortest first"),
        ("w2", "shortest first"),
        ("w0", "shortest first"),
        ("w1", "shortest first"),
    ]
    policy.submit(work("a", cost=1.5), fleet, SECOND)
    policy.submit(work("b", at=2.0, cost=0.3), fleet, SECOND)
    decision = policy.next(fleet, 6 * SECOND)
    assert isinstance(decision, Dispatch)
    # 1.8 s: it stays as it is.
    assert decision.work.id == "b"


def test_it_goes_back_to_the_order_of_arrival_when_little_waits(work: Make) -> None:
    policy, fleet = Adaptive(high=2.0, low=0.5), FakeFleet({"chat": {"gpu": 1}})
    for id, cost in (("huge", 5.0), ("long", 0.3), ("short", 0.1)):
        policy.submit(work(id, cost=cost), fleet, SECOND)
    assert policy.next(fleet, SECOND).why == "shortest first"  # type: ignore[union-attr]
    policy.submit(work("also", at=1.5, cost=0.01), fleet, SECOND)
    policy._forget(work("huge"))
    decision = policy.next(fleet, SECOND)
    assert isinstance(decision, Dispatch)
    assert (decision.work.id, decision.why) == ("long", "by arrival")


def test_what_has_waited_for_the_bound_goes_first_in_either_order(work: Make, order: Order) -> None:
    steady = [work(f"n{n}", at=1.05 + 0.1 * n) for n in range(60)]
    done = order(Adaptive(high=0.2, low=0.1, aging=2.0), work("first"), work("long", at=1.01, cost=5.0), *steady)
    assert 17 <= done.index("long") <= 22
