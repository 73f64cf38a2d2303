"""Tests for `rag.evaluate` against values worked out by hand."""

from __future__ import annotations

from math import log2

import pytest
from sage_rag import metrics
from sage_rag.evaluate import Judged, Scores, evaluate
from sage_rag.records import Passage

from sage_core import Dataset


def passages(*paths: str) -> list[Passage]:
    return [Passage(path=path, start=0, end=1, text="x") for path in paths]


def test_ndcg_by_hand() -> None:
    # Relevant at ranks 2 and 4 of three relevant ones: (1/log2 3 + 1/log2 5) / (1 + 1/log2 3 + 1/log2 4).
    wanted = (1 / log2(3) + 1 / log2(5)) / (1 + 1 / log2(3) + 0.5)
    assert metrics.ndcg(["x", "a", "y", "b"], {"a", "b", "c"}, 10) == pytest.approx(wanted)
    assert metrics.ndcg(["x", "a", "y", "b"], {"a", "b", "c"}, 1) == 0
    assert metrics.ndcg(["a"], {"a", "b"}, 1) == 1
    assert metrics.ndcg(["a"], set(), 1) == 0


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


def test_means_are_over_the_rows_that_can_be_judged() -> None:
    rows = Dataset(
        [
            Judged(passages=passages("a", "a", "b"), relevant=["b"], answer="308", gold=["308"]),
            Judged(passages=passages("a"), relevant=["a"], answer="four", gold=["five"]),
            Judged(passages=passages("a"), relevant=[]),
        ]
    )
    # The first row's documents are a, b: a repeated document counts once.
    assert evaluate(rows, k=5) == Scores(
        questions=3, ndcg=round((1 / log2(3) + 1) / 2, 6), recall=1.0, mrr=0.75, em=0.5, f1=0.5
    )


def test_lines_of_a_jsonl_file_may_be_judged_by_their_id() -> None:
    rows = Dataset([Judged(passages=passages("c.jsonl#7", "c.jsonl#9"), relevant=["9"])])
    assert evaluate(rows).mrr == 0.5
    rows = Dataset([Judged(passages=passages("c.jsonl#7", "c.jsonl#9"), relevant=["c.jsonl#9"])])
    assert evaluate(rows).mrr == 0.5


def test_what_cannot_be_measured_is_none() -> None:
    assert evaluate(Dataset([])) == Scores(questions=0, ndcg=None, recall=None, mrr=None, em=None, f1=None)
    assert evaluate(Dataset([Judged(answer="x", gold=["x"])])).ndcg is None


def test_k_must_be_positive() -> None:
    with pytest.raises(ValueError, match="k = 0"):
        evaluate(Dataset([]), k=0)
