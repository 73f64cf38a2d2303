"""Any place, by lot."""

from __future__ import annotations

from sage_policies.random import Random

from sage_core import Work


def works(count: int) -> list[Work]:
    return [Work(id=f"w{n}", lane="chat", kind="generate", arrival=0) for n in range(count)]


def test_it_is_even_whatever_the_scores_and_depends_on_the_seed() -> None:
    scores = dict(zip("abcd", (0.0, 0.2, 0.9, 1.0), strict=True))
    picked = [Random(seed=1).pick(work, scores) for work in works(4_000)]
    assert all(850 < picked.count(name) < 1_150 for name in scores)
    assert picked != [Random(seed=2).pick(work, scores) for work in works(4_000)]


def test_the_order_of_the_places_does_not_matter() -> None:
    forward = [Random().pick(work, dict.fromkeys("abc", 0.0)) for work in works(50)]
    assert forward == [Random().pick(work, dict.fromkeys("cba", 0.0)) for work in works(50)]
