from __future__ import annotations

from collections.abc import Callable

from openai import OpenAI
from openai.types.chat import ChatCompletionMessageParam, ChatCompletionStreamOptionsParam
from sage_gateway.testing import Running

HELLO: list[ChatCompletionMessageParam] = [{"role": "user", "content": "one two three"}]
Serve = Callable[..., Running]


def test_an_answer(client: OpenAI) -> None:
    said = client.chat.completions.create(model="echo", messages=HELLO)
    assert said.choices[0].message.content == "one two three"
    assert said.usage
    assert said.usage.total_tokens == 6


def test_a_stream_has_no_usage_that_was_not_asked_for(client: OpenAI) -> None:
    chunks = list(client.chat.completions.create(model="echo", messages=HELLO, stream=True))
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == "one two three"
    assert chunks[-1].choices[0].finish_reason == "stop"
    assert [chunk.usage for chunk in chunks if chunk.usage] == []


def test_a_stream_with_usage(client: OpenAI) -> None:
    wish: ChatCompletionStreamOptionsParam = {"include_usage": True}
    chunks = list(client.chat.completions.create(model="echo", messages=HELLO, stream=True, stream_options=wish))
    assert [chunk.usage.total_tokens for chunk in chunks if chunk.usage] == [6]
    assert chunks[-1].choices == []
