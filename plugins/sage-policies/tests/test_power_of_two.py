"""The better of two places drawn by lot."""

from __future__ import annotations

import random
from collections import Counter

import pytest
from sage_policies.power_of_two import PowerOfTwo

from sage_core import Candidate, Needs, Place, Work
from sage_core.testing import selector_named


def works(count: int) -> list[Work]:
    return [Work(id=f"w{n}", lane="chat", kind="generate", arrival=0) for n in range(count)]


def drawn(work: Work, names: list[str], seed: int = 0) -> set[str]:
    """The two that are drawn: whichever is made better is picked."""
    return {
        name for name in names if PowerOfTwo(seed).pick(work, {each: float(each == name) for each in names}) == name
    }


def test_it_never_takes_the_worst_and_mostly_a_good_one() -> None:
    scores = {f"e{n}": n / 9 for n in range(10)}
    picked = [PowerOfTwo().pick(work, scores) for work in works(2_000)]
    assert "e0" not in picked
    # The best of ten is drawn by two in ten.
    assert 300 < picked.count("e9") < 500


@pytest.mark.parametrize("seed", range(10))
def test_it_draws_two_and_never_takes_the_worse_of_them(seed: int) -> None:
    rng = random.Random(seed)
    names = [f"e{n}" for n in range(rng.randrange(2, 20))]
    for work in works(50):
        two = drawn(work, names, seed)
        # A tie among the rest falls to one of the two as well.
        assert len(two) == 2
        scores = {name: rng.choice((0.0, 0.5, rng.random())) for name in names}
        picked = PowerOfTwo(seed).pick(work, scores)
        assert picked in two
        assert scores[picked] == max(scores[name] for name in two)


def test_the_draw_is_even_and_depends_on_the_seed() -> None:
    names = [f"e{n}" for n in range(5)]
    counts = Counter(name for work in works(1_000) for name in drawn(work, names))
    assert all(340 < counts[name] < 460 for name in names)
    assert any(drawn(work, names) != drawn(work, names, seed=1) for work in works(20))


def test_named_alone_it_compares_by_load() -> None:
    """Also where what it knows is stale: the engine that looks worst is not taken by everybody's second choice."""
    places = [
        Candidate(id=f"e{n}", running=n, load=float(n), place=Place(engine=f"e{n}", running=n, load=float(n)))
        for n in range(10)
    ]
    chain = selector_named("power_of_two")
    picked = Counter(found.id for work in works(500) if (found := chain.pick(work, Needs(), places)) is not None)
    assert picked["e9"] == 0
    assert picked["e0"] > 2 * picked["e7"]


def test_stale_loads_do_not_send_everybody_to_one_place() -> None:
    """Ten works decided on the same old figures: the least loaded would get all of them, here it gets its two in n."""
    scores = {f"e{n}": 1.0 if n == 0 else 0.5 for n in range(10)}
    picked = Counter(PowerOfTwo().pick(work, scores) for work in works(1_000))
    assert 140 < picked["e0"] < 260
    assert len(picked) == 10
