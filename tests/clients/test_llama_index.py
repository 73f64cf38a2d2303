"""LlamaIndex's classes for OpenAI-like servers, unchanged."""

from __future__ import annotations

import asyncio
from typing import Any

import openai
import pytest
from llama_index.core.llms import ChatMessage
from llama_index.core.tools import FunctionTool
from llama_index.embeddings.openai_like import OpenAILikeEmbedding
from llama_index.llms.openai_like import OpenAILike

from tests.clients.conftest import Upstream

FOX = [ChatMessage(role="user", content="the quick brown fox")]


def weather(city: str) -> str:
    """Tell the weather of a city."""
    return f"rain in {city}"


def chat(url: str, **options: Any) -> OpenAILike:
    given = {"model": "chat", "is_chat_model": True, "is_function_calling_model": True, "max_retries": 0, **options}
    return OpenAILike(api_base=url, api_key="any", **{"timeout": 20, **given})


def test_an_answer(url: str) -> None:
    assert chat(url).chat(FOX).message.content == "the quick brown fox"


def test_a_stream(url: str) -> None:
    pieces = [piece.delta or "" for piece in chat(url).stream_chat(FOX)]
    assert "".join(pieces) == "the quick brown fox"
    assert len([piece for piece in pieces if piece]) == 4


def test_a_stream_without_blocking(url: str) -> None:
    async def read() -> str:
        return "".join([piece.delta or "" async for piece in await chat(url).astream_chat(FOX)])

    assert asyncio.run(read()) == "the quick brown fox"


def test_a_text_is_continued(url: str) -> None:
    assert chat(url, is_chat_model=False).complete("the quick brown fox").text == "the quick brown fox"


def test_a_tool_is_asked_for(url: str) -> None:
    llm = chat(url)
    answer = llm.chat_with_tools([FunctionTool.from_defaults(weather)], user_msg="Bern")
    (call,) = llm.get_tool_calls_from_response(answer)
    assert (call.tool_name, call.tool_kwargs) == ("weather", {"text": "Bern"})


def test_vectors(url: str) -> None:
    vectors = OpenAILikeEmbedding(model_name="vectors", api_base=url, api_key="any")
    batch = vectors.get_text_embedding_batch(["a fox", "a dog", "a cat"])
    assert vectors.get_text_embedding("a dog") == pytest.approx(batch[1])
    assert len(batch[2]) == 16


def test_an_unknown_model(url: str) -> None:
    with pytest.raises(openai.NotFoundError, match="chat"):
        chat(url, model="chatt").chat(FOX)


def test_a_timeout_frees_the_upstream(url: str, slow: Upstream) -> None:
    before = slow.fake.engine.cancelled
    with pytest.raises(openai.APITimeoutError):
        chat(url, model="slow", timeout=0.5).chat(FOX)
    slow.wait_for(before + 1)
