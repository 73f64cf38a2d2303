"""The engine with the least work left."""

from __future__ import annotations

import random

import pytest
from sage_policies.least_work_left import LeastWorkLeft

from sage_core import Candidate, Place, Work

WORK = Work(id="w", lane="chat", kind="generate", arrival=0, tokens_in=1_000, tokens_out=100)


def place(id: str, *, running: int = 0, load: float = 0.0, prefill: int = 0, context: int = 0) -> Candidate:
    seen = Place(engine=id, running=running, load=load, prefill=prefill, context=context)
    return Candidate(id=id, running=running, load=load, place=seen)


def best(*places: Candidate) -> str:
    scores = LeastWorkLeft().score(WORK, places)
    return max(scores, key=lambda id: scores[id])


def test_it_counts_answers_under_way_as_half_done() -> None:
    late = place("late", running=4, load=4.0, prefill=0, context=4_000)
    fresh = place("fresh", running=3, load=3.0, prefill=3_000, context=3_300)
    assert best(late, fresh) == "late"
    assert best(fresh, place("idle")) == "idle"


@pytest.mark.parametrize("seed", range(20))
def test_the_best_is_the_minimum_and_none_of_less_work_scores_worse(seed: int) -> None:
    rng = random.Random(seed)
    places = [
        place(f"e{n}", running=rng.randrange(9), load=rng.choice((0.0, rng.uniform(0, 9))), prefill=p, context=p + c)
        for n in range(rng.randrange(1, 30))
        for p, c in [(rng.randrange(4_000), rng.randrange(4_000))]
    ]

    def left(each: Candidate) -> float:
        assert each.place is not None
        waits = each.place.prefill / each.place.context if each.place.context else 1.0
        return each.load * (1.0 + waits) / 2.0 + 1e-6 * each.running

    scores = LeastWorkLeft().score(WORK, places)
    assert left(min(places, key=lambda each: -scores[each.id])) == pytest.approx(min(map(left, places)))
    ranked = sorted(places, key=lambda each: -scores[each.id])
    assert [left(each) for each in ranked] == pytest.approx(sorted(map(left, places)))


def test_equal_loads_fall_by_the_number_of_works() -> None:
    assert best(place("a", running=2, load=1.0), place("b", running=1, load=1.0)) == "b"
