"""The shortest work first."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import pytest
from sage_policies.sjf import ShortestFirst

from sage_core import Work

Make = Callable[..., Work]
Order = Callable[..., list[str]]


def test_the_smallest_goes_first(work: Make, order: Order) -> None:
    works = [work("first"), *(work(f"s{n}", at=1.01, cost=n / 10) for n in (9, 5, 7))]
    assert order(ShortestFirst(), *works) == ["first", "s5", "s7", "s9"]


def test_ties_fall_by_arrival_and_then_by_submission(work: Make, order: Order) -> None:
    works = [work("first"), work("b", at=1.01), work("c", at=1.01), work("later", at=1.02), work("a", at=1.01)]
    assert order(ShortestFirst(), *works) == ["first", "b", "c", "a", "later"]


def test_a_long_one_waits_for_the_bound_and_no_longer(work: Make, order: Order) -> None:
    steady = [work(f"n{n}", at=1.05 + 0.1 * n) for n in range(60)]
    done = order(ShortestFirst(aging=2.0), work("first"), work("long", at=1.01, cost=5.0), *steady)
    assert 19 <= done.index("long") <= 22


@pytest.mark.parametrize("costs", [(0.5, 0.1, 0.3, 0.2), (0.1, 0.1, 0.4, 0.3)])
def test_no_other_order_has_a_smaller_mean_wait(work: Make, order: Order, costs: tuple[float, ...]) -> None:
    sizes = {f"w{number}": cost for number, cost in enumerate(costs)}

    def waits(ids: tuple[str, ...]) -> float:
        return sum(sum(sizes[id] for id in ids[:number]) for number in range(len(ids)))

    done = order(ShortestFirst(), *(work(id, cost=cost) for id, cost in sizes.items()))
    assert waits(tuple(done)) == pytest.approx(min(map(waits, itertools.permutations(sizes))))
