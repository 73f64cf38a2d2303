"""Tests for `rag.retrieve`, `rag.highlight` and `rag.rerank` on a small corpus."""

from __future__ import annotations

import asyncio
from typing import Any

import numpy as np
import pytest
from sage_rag.highlight import highlight
from sage_rag.index import BuildIndex, Index
from sage_rag.records import Entry, Passage
from sage_rag.rerank import rerank
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


def passage(text: str, path: str = "a.md", start: int = 0) -> Passage:
    return Passage(path=path, start=start, end=start + len(text), text=text, score=0.5)


def test_rerank_orders_by_the_models_score_and_keeps_ties_in_order(ctx: Any) -> None:
    given = [passage("a b"), passage("x", start=10), passage("a b c", start=20), passage("c", start=30)]
    found = asyncio.run(rerank("a b c", given, model="m", k=3, ctx=ctx))
    assert [(one.text, one.score) for one in found] == [("a b c", 3.0), ("a b", 2.0), ("c", 1.0)]
    assert ctx.client.calls == [("rerank", "m", 4)]


def test_rerank_of_nothing_calls_no_model(ctx: Any) -> None:
    assert asyncio.run(rerank("a", [], model="m", ctx=ctx)) == []
    assert ctx.client.calls == []


def test_highlight_quotes_the_sentence_with_its_place(ctx: Any) -> None:
    text = "Cats sleep. A worker renews its lease. The job is done."
    found = asyncio.run(highlight("Which worker renews a lost lease?", [passage(text, start=100)], k=1, ctx=ctx))
    assert found[0].text == "A worker renews its lease."
    assert (found[0].start, found[0].end) == (112, 138)
    assert text[found[0].start - 100 : found[0].end - 100] == found[0].text
    assert 0 < found[0].score < 1


def test_highlight_counts_a_sentence_of_two_overlapping_passages_once(ctx: Any) -> None:
    given = [passage("One lease. Two lease.", start=0), passage("Two lease. Six.", start=11)]
    found = asyncio.run(highlight("lease", given, k=5, ctx=ctx))
    assert [one.text for one in found] == ["One lease.", "Two lease.", "Six."]


def test_highlight_can_compare_vectors(ctx: Any) -> None:
    found = asyncio.run(highlight("a lease", [passage("Cats. A lease. Dogs.")], k=1, model="m", ctx=ctx))
    assert found[0].text == "A lease."
    assert found[0].score == pytest.approx(1)
    assert ctx.client.calls == [("embed", "m", 4)]


def test_highlight_looks_for_what_is_asked_not_for_how(ctx: Any) -> None:
    given = [passage("The fence grows. See what is done. The fence guards. A fence is a number.")]
    found = asyncio.run(highlight("What is it?", given, k=1, ctx=ctx))
    assert found[0].text == "See what is done."
    found = asyncio.run(highlight("What is a fence?", given, ctx=ctx))
    assert all("fence" in one.text for one in found)


def test_highlight_without_passages_or_words(ctx: Any) -> None:
    assert asyncio.run(highlight("lease", [], ctx=ctx)) == []
    found = asyncio.run(highlight("?", [passage("Cats.")], ctx=ctx))
    assert [one.score for one in found] == [0]


def test_passages_may_arrive_as_dicts(ctx: Any) -> None:
    row: Any = {"path": "a.md", "start": 0, "end": 5, "text": "Cats.", "score": 1}
    assert paths(asyncio.run(highlight("cats", [row], ctx=ctx))) == ["a.md"]
