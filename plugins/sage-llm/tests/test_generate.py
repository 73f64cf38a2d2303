"""Tests for `llm.generate`."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from sage_llm.generate import generate
from sage_llm.stream import Generation

from sage_core import ModelError


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


def test_an_answer_may_be_empty(ctx: Any) -> None:
    ctx.client.answers = [""]
    assert asyncio.run(generate("", model="m", ctx=ctx)).text == ""
    assert ctx.client.asked[0]["messages"] == [{"role": "user", "content": ""}]
