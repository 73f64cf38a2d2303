"""Reading collections."""

from __future__ import annotations

from pathlib import Path

import pytest
from sage_bench.collection import corpus_of, first_documents, read_questions

from sage_core import UsageError


def test_questions_come_with_what_answers_them_and_unjudged_ones_are_left_out(collection: Path) -> None:
    found = read_questions(collection)
    assert [question.id for question in found] == ["q1", "q2", "q3"]
    assert found[0].relevant == ("d2",), "a judgement of 0 means not relevant"
    assert found[1].gold == ("ten minutes",)


def test_a_sample_is_decided_by_its_seed_and_keeps_the_order(collection: Path) -> None:
    drawn = {tuple(question.id for question in read_questions(collection, sample=2, seed=seed)) for seed in range(20)}
    assert drawn == {("q1", "q2"), ("q1", "q3"), ("q2", "q3")}
    assert read_questions(collection, sample=2, seed=3) == read_questions(collection, sample=2, seed=3)
    assert len(read_questions(collection, sample=99)) == 3


def test_the_first_documents_are_a_corpus_of_their_own(collection: Path, tmp_path: Path) -> None:
    assert len(first_documents(collection, 2, tmp_path / "two").read_text().splitlines()) == 2
    assert first_documents(collection, 0, tmp_path / "all").read_text() == corpus_of(collection).read_text()


def test_a_folder_that_is_no_collection_says_what_one_is(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"corpus\.jsonl does not exist") as caught:
        corpus_of(tmp_path)
    assert "queries.jsonl, qrels/" in str(caught.value)
