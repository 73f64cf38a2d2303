"""Tests for `rag.retrieve` on a small corpus."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from sage_rag.index import BuildIndex, Index
from sage_rag.records import Entry, Passage
from sage_rag.retrieve import retrieve

from sage_core import Batch

#: path → (text, vector): cosine to [1, 0] falls, while "lease" occurs where the cosine is low.
CORPUS = {
    "docs/a.md": ("workers and claims", [1.0, 0.0]),
    "docs/b.md": ("the fence of a job", [0.8, 0.6]),
    "docs/c.md": ("a lease ends", [0.6, 0.8]),
    "notes/d.md": ("a lease is a lease", [0.0, 1.0]),
}
QUESTION = np.array([1, 0], np.float32)


@pytest.fixture
def index(ctx: Any) -> Index:
    fold = BuildIndex()
    fold.add(
        Batch(
            Entry(vector=np.array(vector, np.float32), text=text, path=path) for path, (text, vector) in CORPUS.items()
        )
    )
    return fold.finish(ctx.new_artifact())


def paths(passages: list[Passage]) -> list[str]:
    return [passage.path for passage in passages]


def test_dense_ranks_by_cosine(index: Index, ctx: Any) -> None:
    found = retrieve(QUESTION, "lease", index, mode="dense", k=3, ctx=ctx)
    assert paths(found) == ["docs/a.md", "docs/b.md", "docs/c.md"]
    assert [passage.score for passage in found] == pytest.approx([1.0, 0.8, 0.6], abs=1e-6)
    assert found[0] == Passage(path="docs/a.md", start=0, end=18, text="workers and claims", score=1.0)


def test_bm25_ranks_by_words_and_leaves_out_what_shares_none(index: Index, ctx: Any) -> None:
    found = retrieve(QUESTION, "Lease?", index, mode="bm25", ctx=ctx)
    assert paths(found) == ["notes/d.md", "docs/c.md"]
    assert [passage.score for passage in found] == pytest.approx([0.0, 0.6], abs=1e-6)


def test_hybrid_fuses_both_rankings(index: Index, ctx: Any) -> None:
    # d is fourth and first, c third and second: 1/64 + 1/61 = 0.03202 > 1/63 + 1/62 = 0.03200 > 1/61 of a alone.
    assert paths(retrieve(QUESTION, "lease", index, ctx=ctx)) == ["notes/d.md", "docs/c.md", "docs/a.md", "docs/b.md"]
    # With a constant of 0 a first place outweighs the rest: d = 1/4 + 1, a = 1, c = 1/3 + 1/2.
    assert paths(retrieve(QUESTION, "lease", index, rrf=0, k=2, ctx=ctx)) == ["notes/d.md", "docs/a.md"]
    # depth 1 fuses the two winners only; the lower position wins their tie.
    assert paths(retrieve(QUESTION, "lease", index, depth=1, k=1, ctx=ctx)) == ["docs/a.md"]


def test_the_score_floor_means_the_same_in_every_mode(index: Index, ctx: Any) -> None:
    for mode in ("dense", "bm25", "hybrid"):
        found = retrieve(QUESTION, "lease", index, mode=mode, min_score=0.5, ctx=ctx)
        assert "notes/d.md" not in paths(found)
        assert "docs/c.md" in paths(found)
    assert retrieve(-QUESTION, "lease", index, min_score=0.1, ctx=ctx) == []


def test_a_path_filter_applies_before_the_cut(index: Index, ctx: Any) -> None:
    found = retrieve(QUESTION, "fence", index, k=1, path_glob="notes/*", ctx=ctx)
    assert paths(found) == ["notes/d.md"]
    assert retrieve(QUESTION, "fence", index, path_glob="nowhere/*", ctx=ctx) == []


def test_an_index_is_opened_once(index: Index, ctx: Any) -> None:
    for _ in range(3):
        retrieve(QUESTION, "lease", index, ctx=ctx)
    assert ctx.loads == 1


def test_a_question_of_another_model_is_refused(index: Index, ctx: Any) -> None:
    with pytest.raises(ValueError, match=r"vectors of dimension 2, the question's has 3: embed both with the same"):
        retrieve(np.ones(3, np.float32), "lease", index, ctx=ctx)


def test_impossible_options_are_refused(index: Index, ctx: Any) -> None:
    with pytest.raises(ValueError, match="k = 0, depth = 100, rrf = 60"):
        retrieve(QUESTION, "lease", index, k=0, ctx=ctx)
