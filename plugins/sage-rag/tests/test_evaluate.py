"""Tests for `rag.evaluate`: which rows and documents count; test_metrics.py says what each measure is."""

from __future__ import annotations

from math import log2
from typing import Any

import pytest
from sage_rag.evaluate import Judged, Scores, evaluate
from sage_rag.records import Passage

from sage_core import Dataset


def passages(*paths: str) -> list[Passage]:
    return [Passage(path=path, start=0, end=1, text="x") for path in paths]


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


def test_documents_that_are_not_judged_never_count_as_one() -> None:
    # Two files whose lines have the same id, and folders named alike after a mark, are two documents each.
    for first, second in (("a.jsonl#1", "b.jsonl#1"), ("a#/x.md", "b#/x.md")):
        assert evaluate(Dataset([Judged(passages=passages(first, second, "c.md"), relevant=["c.md"])])).mrr == (
            pytest.approx(1 / 3, abs=1e-6)
        )
    assert evaluate(Dataset([Judged(passages=passages("a#9"), relevant=["9"])])).mrr == 0


def test_passages_may_arrive_as_dicts() -> None:
    row: Any = {"path": "a.md", "start": 0, "end": 1, "text": "x"}
    assert evaluate(Dataset([Judged(passages=[row], relevant=["a.md"])])).recall == 1


def test_what_cannot_be_measured_is_none() -> None:
    assert evaluate(Dataset([])) == Scores(questions=0, ndcg=None, recall=None, mrr=None, em=None, f1=None)
    assert evaluate(Dataset([Judged(answer="x", gold=["x"])])).ndcg is None


def test_k_must_be_positive() -> None:
    with pytest.raises(ValueError, match="k = 0"):
        evaluate(Dataset([]), k=0)
