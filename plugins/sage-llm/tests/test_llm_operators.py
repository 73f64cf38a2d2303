"""Tests for `llm.embed`, `llm.generate` and `llm.rerank`."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from sage_llm.embed import embed
from sage_llm.generate import generate
from sage_llm.rerank import rerank
from sage_llm.stream import Generation

from sage_core import Batch, ModelError


def test_a_batch_is_embedded_in_one_call(ctx: Any) -> None:
    vectors = asyncio.run(embed(Batch(["abc", "", "de"]), model="m", ctx=ctx))
    assert vectors.tolist() == [[3, ord("a")], [0, 0], [2, ord("d")]]
    assert ctx.client.asked == [{"model": "m", "texts": ["abc", "", "de"]}]


def test_a_prefix_goes_before_every_text(ctx: Any) -> None:
    asyncio.run(embed(Batch(["a", "b"]), model="m", prefix="query: ", ctx=ctx))
    assert ctx.client.asked[0]["texts"] == ["query: a", "query: b"]


def test_an_answer_is_joined_and_counted(ctx: Any) -> None:
    ctx.client.answers = ["A lease ends."]
    assert asyncio.run(generate("Why?", model="m", ctx=ctx)) == Generation(text="A lease ends.", tokens=3)
    assert ctx.client.asked == [
        {
            "model": "m",
            "messages": [{"role": "user", "content": "Why?"}],
            "max_tokens": 256,
            "temperature": 0.0,
            "stop": (),
            "seed": None,
            "schema": None,
        }
    ]


def test_options_reach_the_model(ctx: Any) -> None:
    ctx.client.answers = ["x"]
    asyncio.run(
        generate("Why?", model="m", max_tokens=9, temperature=0.7, system="Be brief.", stop=["\n"], seed=4, ctx=ctx)
    )
    asked = ctx.client.asked[0]
    assert asked["messages"][0] == {"role": "system", "content": "Be brief."}
    assert (asked["max_tokens"], asked["temperature"], asked["stop"], asked["seed"]) == (9, 0.7, ("\n",), 4)


def test_an_answer_that_was_cut_off_is_an_error(ctx: Any) -> None:
    ctx.client.answers = ["A lease"]
    ctx.client.finishes = False
    with pytest.raises(ModelError) as caught:
        asyncio.run(generate("Why?", model="m", ctx=ctx))
    assert str(caught.value) == (
        "model 'm': the stream ended before the answer did\n  help: run again; the engine's log says why"
    )


def test_rerank_keeps_the_order_of_documents(ctx: Any) -> None:
    assert asyncio.run(rerank("q", ["ab", "a", "abc"], model="m", ctx=ctx)) == [2.0, 1.0, 3.0]


def test_rerank_of_nothing_calls_no_model(ctx: Any) -> None:
    assert asyncio.run(rerank("q", [], model="m", ctx=ctx)) == []
    assert ctx.client.asked == []
