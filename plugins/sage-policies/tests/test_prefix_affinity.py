"""The engine that has computed the prompt's beginning before, unless it is much busier than others."""

from __future__ import annotations

import random

import pytest
from sage_policies.prefix_affinity import AHEAD, TIMES, WORTH, PrefixAffinity

from sage_core import Candidate, Place, Work

WORK = Work(id="w", lane="chat", kind="generate", arrival=0, tokens_in=1_000, tokens_out=100)


def place(id: str, *, running: int = 0, load: float = 0.0, local: float = 0.0) -> Candidate:
    return Candidate(id=id, running=running, load=load, place=Place(engine=id, running=running, load=load), local=local)


def best(*places: Candidate) -> str:
    scores = PrefixAffinity().score(WORK, places)
    return max(scores, key=lambda id: scores[id])


def test_it_goes_where_the_prompt_is_known() -> None:
    assert best(place("idle"), place("knows", running=5, load=5.0, local=0.6)) == "knows"
    assert best(place("less", local=0.3), place("more", running=4, load=4.0, local=0.9)) == "more"


def test_it_yields_to_load() -> None:
    assert best(place("idle", running=1), place("knows", running=30, load=30.0, local=0.9)) == "idle"


def test_without_a_known_prefix_it_takes_the_least_loaded() -> None:
    assert best(place("a", load=2.0), place("b", load=1.0), place("c", load=3.0, local=0.05)) == "b"


@pytest.mark.parametrize("seed", range(40))
def test_it_goes_to_who_knows_most_of_those_with_a_claim_and_else_to_the_least_loaded(seed: int) -> None:
    rng = random.Random(seed)
    places = [
        place(f"e{n}", running=(r := rng.randrange(40)), load=r + rng.random(), local=rng.choice((0.0, rng.random())))
        for n in range(rng.randrange(1, 12))
    ]
    found = next(each for each in places if each.id == best(*places))
    least = min(each.running for each in places)
    claims = [
        each
        for each in places
        if each.local >= WORTH and (each.running <= least + AHEAD or each.running <= least * TIMES)
    ]
    if claims:
        assert found.local == max(each.local for each in claims)
    else:
        assert found.load == min(each.load for each in places)
