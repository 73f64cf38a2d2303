"""Tests for `rag.index` and the files it writes."""

from __future__ import annotations

import json
import random
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sage_rag.index import BuildIndex, Index
from sage_rag.records import Entry
from sage_rag.store import OpenIndex, best, fuse
from sage_rag.words import words

from sage_core import Batch


def entries(embedding: Any, *texts: str) -> list[Entry]:
    return [
        Entry(vector=embedding(text), text=text, path=f"docs/{number % 3}.md", start=number, end=number + len(text))
        for number, text in enumerate(texts)
    ]


def build(ctx: Any, rows: list[Entry], batch: int = 64) -> Index:
    fold = BuildIndex()
    for start in range(0, len(rows), batch):
        fold.add(Batch(rows[start : start + batch]))
    return fold.finish(ctx.new_artifact())


TEXTS = ("a lease ends", "a worker claims", "a fence only grows", "cats sleep", "the lease of a worker", "字と語")


def test_rows_in_any_order_and_batches_give_the_same_digest(ctx: Any, embedding: Any) -> None:
    rows = entries(embedding, *TEXTS)
    wanted = build(ctx, rows).digest
    shuffled = rows.copy()
    for seed in range(5):
        random.Random(seed).shuffle(shuffled)
        assert build(ctx, shuffled, batch=1 + seed).digest == wanted


def test_another_text_or_vector_gives_another_digest(ctx: Any, embedding: Any) -> None:
    wanted = build(ctx, entries(embedding, *TEXTS)).digest
    assert build(ctx, entries(embedding, *TEXTS[:-1], "字と詩")).digest != wanted
    assert build(ctx, entries(lambda text: embedding(text)[::-1], *TEXTS)).digest != wanted


def test_vectors_are_normalised_and_passages_kept(ctx: Any) -> None:
    vector = np.array([3.0, 4.0], np.float32)
    opened = OpenIndex(build(ctx, [Entry(vector=vector, text="whole", path="a.md")]).path)
    row = opened.rows[0]
    assert (row.path, row.start, row.end, row.text) == ("a.md", 0, 5, "whole")
    assert opened.cosines(vector * 7)[0] == pytest.approx(1)
    assert opened.cosines(np.array([4.0, -3.0]))[0] == pytest.approx(0, abs=1e-6)


def test_a_passage_with_a_start_alone_ends_with_its_text(ctx: Any, embedding: Any) -> None:
    opened = OpenIndex(build(ctx, [Entry(vector=embedding("x"), text="lease", path="a.md", start=10)]).path)
    assert (opened.rows[0].start, opened.rows[0].end) == (10, 15)


def test_an_index_of_nothing_answers_nothing(ctx: Any) -> None:
    opened = OpenIndex(build(ctx, []).path)
    assert opened.rows == []
    assert len(opened.cosines(np.ones(4))) == len(opened.bm25("lease")) == 0


def test_passages_without_words_have_no_bm25_score(ctx: Any, embedding: Any) -> None:
    opened = OpenIndex(build(ctx, entries(embedding, "...", "!!!")).path)
    assert opened.bm25("lease").tolist() == [0, 0]


def test_bm25_equals_the_formula(ctx: Any, embedding: Any) -> None:
    texts = ["lease lease worker", "worker", "cats sleep all day long"]
    opened = OpenIndex(build(ctx, entries(embedding, *texts)).path)
    lengths = [3, 1, 5]
    scores = opened.bm25("lease unknown worker")
    for i, row in enumerate(opened.rows):
        n, expected = texts.index(row.text), 0.0
        for word, holding in (("lease", 1), ("worker", 2)):
            count = row.text.split().count(word)
            idf = np.log(1 + (3 - holding + 0.5) / (holding + 0.5))
            expected += idf * count / (count + 1.5 * (1 - 0.75 + 0.75 * lengths[n] / 3))
        assert scores[i] == pytest.approx(expected, rel=1e-5)


def test_mixed_dimensions_name_both_documents(ctx: Any) -> None:
    rows = [
        Entry(vector=np.ones(2, np.float32), text="x", path="a.md"),
        Entry(vector=np.ones(3, np.float32), text="y", path="b.md"),
    ]
    with pytest.raises(ValueError, match=r"b\.md has a vector of dimension 3, a\.md one of 2: embed all"):
        build(ctx, rows)


def test_vectors_that_are_not_finite_are_refused(ctx: Any) -> None:
    with pytest.raises(ValueError, match=r"a\.md has a vector that holds NaN"):
        build(ctx, [Entry(vector=np.array([np.nan, 1], np.float32), text="x", path="a.md")])


def test_an_index_of_another_format_is_not_read(ctx: Any, embedding: Any) -> None:
    index = build(ctx, entries(embedding, "x"))
    manifest = json.loads((index.path / "index.json").read_text())
    (index.path / "index.json").write_text(json.dumps(manifest | {"format": 99}))
    with pytest.raises(ValueError, match="format 99, this sage-rag reads 1: build it again"):
        OpenIndex(index.path)


@settings(max_examples=50)
@given(st.lists(st.sampled_from([0.0, 0.25, 0.5, 1.0]), max_size=40), st.integers(1, 10), st.randoms())
def test_best_is_the_head_of_a_full_sort(scores: list[float], count: int, rng: random.Random) -> None:
    allowed = np.array([rng.random() < 0.7 for _ in scores], np.bool_)
    block = np.array(scores, np.float32)
    wanted = sorted((i for i in range(len(scores)) if allowed[i]), key=lambda i: (-scores[i], i))[:count]
    assert best(block, allowed, count).tolist() == wanted


def test_fusion_adds_reciprocal_ranks() -> None:
    # 7: 1/61 + 1/62; 3: 1/62 + 1/61, so a tie that the lower wins; 9: 1/63.
    assert fuse([np.array([7, 3]), np.array([3, 7, 9])], 60) == [3, 7, 9]
    assert fuse([np.array([5, 1, 2]), np.array([1, 2])], 60) == [1, 2, 5]


def test_words_fold_case_and_width_and_part_characters() -> None:
    assert words("The ＬＥＡＳＥ's ﬁx_me 字語 v2") == ["the", "lease", "s", "fix", "me", "字", "語", "v2"]
