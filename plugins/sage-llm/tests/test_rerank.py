"""Tests for `llm.rerank`."""

from __future__ import annotations

import asyncio
from typing import Any

from sage_llm.rerank import rerank


def test_rerank_keeps_the_order_of_documents(ctx: Any) -> None:
    assert asyncio.run(rerank("q", ["ab", "a", "abc"], model="m", ctx=ctx)) == [2.0, 1.0, 3.0]


def test_the_model_gets_query_and_documents_as_they_are_and_one_row_is_enough(ctx: Any) -> None:
    assert asyncio.run(rerank("wörld?", ["語", "語"], model="m", ctx=ctx)) == [1.0, 1.0]
    assert ctx.client.asked == [{"model": "m", "query": "wörld?", "documents": ["語", "語"]}]


def test_rerank_of_nothing_calls_no_model(ctx: Any) -> None:
    assert asyncio.run(rerank("q", [], model="m", ctx=ctx)) == []
    assert ctx.client.asked == []
