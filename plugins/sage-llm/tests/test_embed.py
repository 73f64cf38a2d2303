"""Tests for `llm.embed`."""

from __future__ import annotations

import asyncio
from typing import Any

from sage_llm.embed import embed

from sage_core import Batch


def test_a_batch_is_embedded_in_one_call(ctx: Any) -> None:
    vectors = asyncio.run(embed(Batch(["abc", "", "de"]), model="m", ctx=ctx))
    assert vectors.tolist() == [[3, ord("a")], [0, 0], [2, ord("d")]]
    assert ctx.client.asked == [{"model": "m", "texts": ["abc", "", "de"]}]


def test_a_prefix_goes_before_every_text(ctx: Any) -> None:
    asyncio.run(embed(Batch(["a", "b"]), model="m", prefix="query: ", ctx=ctx))
    assert ctx.client.asked[0]["texts"] == ["query: a", "query: b"]


def test_a_prefix_goes_before_empty_texts_too_and_one_row_is_a_batch(ctx: Any) -> None:
    vectors = asyncio.run(embed(Batch([""]), model="m", prefix="é", ctx=ctx))
    assert vectors.tolist() == [[1, ord("é")]]


def test_no_rows_have_no_vectors(ctx: Any) -> None:
    assert asyncio.run(embed(Batch([]), model="m", prefix="query: ", ctx=ctx)).shape == (0, 2)
