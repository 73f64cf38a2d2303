"""Tests for the measures: values worked out by hand, and the formulas of their definitions."""

from __future__ import annotations

import re
import string
from math import log2

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sage_rag import metrics

NAMES = "abcdefgh"
RANKINGS = st.permutations(NAMES).flatmap(lambda names: st.integers(0, len(names)).map(lambda n: names[:n]))
RELEVANT = st.frozensets(st.sampled_from(NAMES + "xyz"))
ANSWERS = st.lists(
    st.sampled_from(["the", "a", "Cat", "cat", "sat", "sat.", "mat", "42", "élan", "-"]), max_size=6
).map(" ".join)


def test_ndcg_by_hand() -> None:
    # Relevant at ranks 2 and 4 of three relevant ones: (1/log2 3 + 1/log2 5) / (1 + 1/log2 3 + 1/log2 4).
    wanted = (1 / log2(3) + 1 / log2(5)) / (1 + 1 / log2(3) + 0.5)
    assert metrics.ndcg(["x", "a", "y", "b"], {"a", "b", "c"}, 10) == pytest.approx(wanted)
    assert metrics.ndcg(["x", "a", "y", "b"], {"a", "b", "c"}, 1) == 0
    assert metrics.ndcg(["a"], {"a", "b"}, 1) == 1
    assert metrics.ndcg(["a"], set(), 1) == 0


@given(RANKINGS, RELEVANT, st.integers(1, 10))
def test_ndcg_is_the_gain_over_that_of_the_best_ranking(ranked: list[str], relevant: frozenset[str], k: int) -> None:
    def gain(names: list[str]) -> float:
        return sum((name in relevant) / log2(place + 2) for place, name in enumerate(names[:k]))

    best = gain(sorted(relevant))
    assert metrics.ndcg(ranked, relevant, k) == pytest.approx(gain(ranked) / best if best else 0)
    assert 0 <= metrics.ndcg(ranked, relevant, k) <= 1 + 1e-12


@given(RANKINGS, RELEVANT, st.integers(1, 10))
def test_recall_counts_the_relevant_ones_found(ranked: list[str], relevant: frozenset[str], k: int) -> None:
    found = [name for name in relevant if name in ranked[:k]]
    assert metrics.recall(ranked, relevant, k) == (len(found) / len(relevant) if relevant else 0)


@given(RANKINGS, RELEVANT)
def test_the_reciprocal_rank_is_that_of_the_first_relevant_one(ranked: list[str], relevant: frozenset[str]) -> None:
    score = metrics.reciprocal_rank(ranked, relevant)
    if not score:
        assert not relevant & set(ranked)
    else:
        place = round(1 / score) - 1
        assert ranked[place] in relevant
        assert not relevant & set(ranked[:place])


def test_recall_and_reciprocal_rank() -> None:
    assert metrics.recall(["x", "a", "b"], {"a", "b", "c", "d"}, 2) == 0.25
    assert metrics.reciprocal_rank(["x", "a", "b"], {"a", "b"}) == 0.5
    assert metrics.reciprocal_rank(["x"], {"a"}) == 0


def test_answers_are_compared_as_for_squad() -> None:
    assert metrics.exact_match("The  Panthers!", ["panthers"]) == 1
    assert metrics.exact_match("Panthers won", ["panthers"]) == 0
    # One of two words right, one of one found: 2 * 0.5 * 1 / 1.5.
    assert metrics.f1("Panthers won", ["broncos", "the Panthers"]) == pytest.approx(2 / 3)
    assert metrics.f1("", ["x"]) == 0
    assert metrics.f1("the", ["a"]) == 1


def normal(text: str) -> str:
    """As the published script of SQuAD spells it."""
    text = "".join(each for each in text.lower() if each not in set(string.punctuation))
    return " ".join(re.sub(r"\b(a|an|the)\b", " ", text).split())


@given(ANSWERS, st.lists(ANSWERS, max_size=3))
def test_f1_is_the_harmonic_mean_of_precision_and_recall_of_words(answer: str, gold: list[str]) -> None:
    def one(words: list[str], wanted: list[str]) -> float:
        left, shared = list(wanted), 0
        for word in words:
            if word in left:
                left.remove(word)
                shared += 1
        if not words or not wanted:
            return float(words == wanted)
        precision, recall = shared / len(words), shared / len(wanted)
        return 2 * precision * recall / (precision + recall) if shared else 0

    wanted = max((one(normal(answer).split(), normal(each).split()) for each in gold), default=0)
    assert metrics.f1(answer, gold) == pytest.approx(wanted)
    assert metrics.exact_match(answer, gold) == (normal(answer) in [normal(each) for each in gold])
    # What matches exactly has all its words right.
    assert metrics.f1(answer, gold) >= metrics.exact_match(answer, gold)


def test_without_a_gold_answer_nothing_matches() -> None:
    assert metrics.exact_match("", []) == metrics.f1("", []) == 0


def test_letters_beyond_ascii_are_compared_and_articles_inside_words_stay() -> None:
    assert metrics.exact_match("ÉLAN, vital", ["élan vital"]) == 1
    assert metrics.exact_match("theatre", ["tre"]) == 0
    assert metrics.f1("Ångström theory", ["the ångström"]) == pytest.approx(2 / 3)
