"""Measures of one ranking, against values worked out by hand."""

from __future__ import annotations

from math import log2

import pytest
from sage_bench import quality


def test_ndcg_discounts_by_place_and_is_a_share_of_the_best_ranking() -> None:
    assert quality.ndcg(["a", "b"], ["a"], 10) == 1.0
    assert quality.ndcg(["b", "a"], ["a"], 10) == pytest.approx(1 / log2(3))
    assert quality.ndcg(["a", "x", "b"], ["a", "b"], 10) == pytest.approx((1 + 1 / 2) / (1 + 1 / log2(3)))
    assert quality.ndcg(["x", "y", "a"], ["a"], 2) == 0.0
    assert quality.ndcg(["a"], [], 10) == 0.0
    assert quality.ndcg(["a"], ["a", "b", "c"], 1) == 1.0


def test_recall_counts_each_relevant_document_once() -> None:
    assert quality.recall(["a", "x", "b"], ["a", "b"], 2) == 0.5
    assert quality.recall(["a", "b"], ["a", "b"], 100) == 1.0
    assert quality.recall(["a"], [], 5) == 0.0


def test_reciprocal_rank_ends_at_k() -> None:
    assert quality.mrr(["x", "a"], ["a"], 10) == 0.5
    assert quality.mrr(["x", "a"], ["a"], 1) == 0.0
