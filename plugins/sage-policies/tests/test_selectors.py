"""What each selector promises, on a few places."""

from __future__ import annotations

from sage_policies.least_work_left import LeastWorkLeft
from sage_policies.lmetric import LMetric
from sage_policies.power_of_two import PowerOfTwo
from sage_policies.prefix_affinity import PrefixAffinity
from sage_policies.random import Random

from sage_core import Candidate, NodeScorer, Place, Work

WORK = Work(id="w", lane="chat", kind="generate", arrival=0, tokens_in=1_000, tokens_out=100)


def place(
    id: str, *, running: int = 0, load: float = 0.0, prefill: int = 0, context: int = 0, local: float = 0.0
) -> Candidate:
    seen = Place(engine=id, running=running, load=load, prefill=prefill, context=context)
    return Candidate(id=id, running=running, load=load, place=seen, local=local)


def best(scorer: NodeScorer, *places: Candidate) -> str:
    scores = scorer.score(WORK, places)
    return max(scores, key=lambda id: scores[id])


def test_least_work_left_counts_answers_under_way_as_half_done() -> None:
    late = place("late", running=4, load=4.0, prefill=0, context=4_000)
    fresh = place("fresh", running=3, load=3.0, prefill=3_000, context=3_300)
    assert best(LeastWorkLeft(), late, fresh) == "late"
    assert best(LeastWorkLeft(), fresh, place("idle")) == "idle"


def test_prefix_affinity_goes_where_the_prompt_is_known() -> None:
    assert best(PrefixAffinity(), place("idle"), place("knows", running=5, load=5.0, local=0.6)) == "knows"
    assert best(PrefixAffinity(), place("less", local=0.3), place("more", running=4, load=4.0, local=0.9)) == "more"


def test_prefix_affinity_yields_to_load() -> None:
    assert best(PrefixAffinity(), place("idle", running=1), place("knows", running=30, load=30.0, local=0.9)) == "idle"


def test_prefix_affinity_without_a_known_prefix_takes_the_least_loaded() -> None:
    assert best(PrefixAffinity(), place("a", load=2.0), place("b", load=1.0), place("c", load=3.0, local=0.05)) == "b"


def test_lmetric_weighs_the_prompt_against_the_batch() -> None:
    assert best(LMetric(), place("batch", running=9), place("prompts", prefill=4_000, running=1)) == "batch"
    assert best(LMetric(), place("batch", running=9), place("idle")) == "idle"


def test_lmetric_counts_only_tokens_that_are_not_known() -> None:
    # 100 new tokens among 6 works against 1,000 among 1.
    assert best(LMetric(), place("knows", running=5, local=0.9), place("idle")) == "knows"
    assert best(LMetric(), place("knows", running=15, local=0.9), place("idle")) == "idle"


def names(count: int) -> list[Work]:
    return [Work(id=f"w{n}", lane="chat", kind="generate", arrival=0) for n in range(count)]


def test_power_of_two_never_takes_the_worst_and_mostly_a_good_one() -> None:
    scores = {f"e{n}": n / 9 for n in range(10)}
    picked = [PowerOfTwo().pick(work, scores) for work in names(2_000)]
    assert "e0" not in picked
    # The best of ten is drawn by two in ten.
    assert 300 < picked.count("e9") < 500


def test_random_is_even_and_depends_on_the_seed() -> None:
    scores = dict.fromkeys("abcd", 0.5)
    picked = [Random(seed=1).pick(work, scores) for work in names(4_000)]
    assert all(850 < picked.count(name) < 1_150 for name in scores)
    assert picked != [Random(seed=2).pick(work, scores) for work in names(4_000)]
