"""Tests for `rag.rerank`."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from sage_rag.records import Passage
from sage_rag.rerank import rerank


def passage(text: str, path: str = "a.md", start: int = 0) -> Passage:
    return Passage(path=path, start=start, end=start + len(text), text=text, score=0.5)


def test_rerank_orders_by_the_models_score_and_keeps_ties_in_order(ctx: Any) -> None:
    given = [passage("a b"), passage("x", start=10), passage("a b c", start=20), passage("c", start=30)]
    found = asyncio.run(rerank("a b c", given, model="m", k=3, ctx=ctx))
    assert [(one.text, one.score) for one in found] == [("a b c", 3.0), ("a b", 2.0), ("c", 1.0)]
    assert ctx.client.calls == [("rerank", "m", 4)]


def test_ties_and_fewer_passages_than_asked_for(ctx: Any) -> None:
    given = [passage("x", path=f"{name}.md") for name in "cab"]
    found = asyncio.run(rerank("x", given, model="m", ctx=ctx))
    assert [one.path for one in found] == ["c.md", "a.md", "b.md"]


def test_rerank_of_nothing_calls_no_model(ctx: Any) -> None:
    assert asyncio.run(rerank("a", [], model="m", ctx=ctx)) == []
    assert ctx.client.calls == []


def test_the_models_score_replaces_the_one_of_retrieval_and_the_place_stays(ctx: Any) -> None:
    given = passage("a lease 字", path="docs/b.md", start=40)
    (found,) = asyncio.run(rerank("a lease", [given], model="m", ctx=ctx))
    assert found == Passage(path="docs/b.md", start=40, end=49, text="a lease 字", score=2.0)
    assert given.score == 0.5


def test_at_least_one_passage_must_be_kept(ctx: Any) -> None:
    with pytest.raises(ValueError, match="k = 0: at least 1 passage must be kept"):
        asyncio.run(rerank("a", [passage("a")], model="m", k=0, ctx=ctx))
    assert ctx.client.calls == []
