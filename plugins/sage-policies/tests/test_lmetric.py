"""The least of new prompt tokens times batch size."""

from __future__ import annotations

import random

import pytest
from sage_policies.lmetric import LMetric

from sage_core import Candidate, Place, Work

WORK = Work(id="w", lane="chat", kind="generate", arrival=0, tokens_in=1_000, tokens_out=100)


def place(id: str, *, running: int = 0, load: float = 0.0, prefill: int = 0, local: float = 0.0) -> Candidate:
    seen = Place(engine=id, running=running, load=load, prefill=prefill)
    return Candidate(id=id, running=running, load=load, place=seen, local=local)


def best(*places: Candidate) -> str:
    scores = LMetric().score(WORK, places)
    return max(scores, key=lambda id: scores[id])


def test_it_weighs_the_prompt_against_the_batch() -> None:
    assert best(place("batch", running=9), place("prompts", prefill=4_000, running=1)) == "batch"
    assert best(place("batch", running=9), place("idle")) == "idle"


def test_it_counts_only_tokens_that_are_not_known() -> None:
    # 100 new tokens among 6 works against 1,000 among 1.
    assert best(place("knows", running=5, local=0.9), place("idle")) == "knows"
    assert best(place("knows", running=15, local=0.9), place("idle")) == "idle"


@pytest.mark.parametrize("seed", range(20))
def test_the_best_has_the_least_product(seed: int) -> None:
    rng = random.Random(seed)
    places = [
        place(f"e{n}", running=rng.randrange(40), prefill=rng.randrange(4_000), local=rng.choice((0.0, rng.random())))
        for n in range(20)
    ]

    def product(each: Candidate) -> float:
        assert each.place is not None
        return (each.place.prefill + max(1.0, 1_000 * (1.0 - each.local))) * (each.running + 1)

    found = next(each for each in places if each.id == best(*places))
    assert product(found) == pytest.approx(min(map(product, places)))


def test_equal_products_fall_by_the_load() -> None:
    assert best(place("a", load=2.0), place("b", load=1.0)) == "b"
