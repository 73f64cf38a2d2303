"""Tests for reading a generated stream to its end."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
from sage_llm.stream import Generation, messages, read

from sage_core import ModelError, Token


async def stream(*tokens: Token) -> AsyncIterator[Token]:
    for token in tokens:
        yield token


def test_pieces_are_joined_and_the_last_token_counts() -> None:
    pieces = (Token(text="A"), Token(text=" lea"), Token(), Token(text="se 字"))
    found = asyncio.run(read("m", stream(*pieces, Token(finish="stop", completion_tokens=5))))
    assert found == Generation(text="A lease 字", tokens=5)


def test_the_last_token_may_bring_text_of_its_own() -> None:
    found = asyncio.run(read("m", stream(Token(text="A"), Token(text="b", finish="length", completion_tokens=2))))
    assert found == Generation(text="Ab", tokens=2)


def test_an_answer_of_no_text_is_one() -> None:
    assert asyncio.run(read("m", stream(Token(finish="stop")))) == Generation(text="", tokens=0)


@pytest.mark.parametrize("tokens", [(), (Token(text="A lease"),)], ids=len)
def test_a_stream_that_ends_without_saying_why_is_an_error(tokens: tuple[Token, ...]) -> None:
    with pytest.raises(ModelError) as caught:
        asyncio.run(read("m", stream(*tokens)))
    assert str(caught.value) == (
        "model 'm': the stream ended before the answer did\n  help: run again; the engine's log says why"
    )


def test_an_engines_error_is_passed_on() -> None:
    async def broken() -> AsyncIterator[Token]:
        yield Token(text="A")
        raise ModelError("m", "the engine is gone")

    with pytest.raises(ModelError, match="model 'm': the engine is gone"):
        asyncio.run(read("m", broken()))


def test_a_chat_is_one_message_after_the_system_message_if_there_is_one() -> None:
    assert messages("Why?") == [{"role": "user", "content": "Why?"}]
    assert messages("Why?", "Be brief.") == [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Why?"},
    ]
    # A list of its own every time: `llm.extract` adds to it.
    assert messages("Why?") is not messages("Why?")
