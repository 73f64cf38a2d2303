"""LangChain's OpenAI classes, unchanged: `base_url` is all that points them here."""

from __future__ import annotations

import asyncio
from typing import Any

import openai
import pytest
from langchain_core.messages import HumanMessage, ToolMessage
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI, OpenAIEmbeddings

from tests.clients.conftest import Upstream


@tool  # type: ignore[untyped-decorator,unused-ignore]  # where LangChain is not installed
def weather(city: str) -> str:
    """Tell the weather of a city."""
    return f"rain in {city}"


def chat(url: str, **options: Any) -> ChatOpenAI:
    return ChatOpenAI(
        **{"model": "chat", "base_url": url, "api_key": "any", "max_retries": 0, "timeout": 20, **options}
    )


def test_an_answer_with_its_totals(url: str) -> None:
    answer = chat(url).invoke("the quick brown fox")
    assert answer.content == "the quick brown fox"
    assert answer.usage_metadata
    assert answer.usage_metadata["output_tokens"] == 4


def test_a_stream(url: str) -> None:
    pieces = [str(piece.content) for piece in chat(url, stream_usage=True).stream("the quick brown fox")]
    assert "".join(pieces) == "the quick brown fox"
    assert len([piece for piece in pieces if piece]) == 4


def test_a_stream_without_blocking(url: str) -> None:
    async def read() -> str:
        return "".join([str(piece.content) async for piece in chat(url).astream("the quick brown fox")])

    assert asyncio.run(read()) == "the quick brown fox"


def test_a_tool_is_asked_for(url: str) -> None:
    answer = chat(url).bind_tools([weather]).invoke("Bern")
    assert [(call["name"], call["args"]) for call in answer.tool_calls] == [("weather", {"text": "Bern"})]


def test_the_newer_protocol_with_a_tool_and_its_result(url: str) -> None:
    model = chat(url, use_responses_api=True)
    assert "".join(chunk.text for chunk in model.stream("one two")) == "one two"
    answer = model.bind_tools([weather]).invoke("Bern")
    assert [(call["name"], call["args"]) for call in answer.tool_calls] == [("weather", {"text": "Bern"})]
    result = ToolMessage("rain", tool_call_id=answer.tool_calls[0]["id"])
    assert "rain" in model.invoke([HumanMessage("Bern"), answer, result]).text


def test_a_batch_of_prompts(url: str) -> None:
    answers = chat(url).batch([f"number {n}" for n in range(10)])
    assert [answer.content for answer in answers] == [f"number {n}" for n in range(10)]


def test_vectors(url: str) -> None:
    # Counting tokens before sending needs a vocabulary from the network; without it LangChain sends plain texts.
    given: dict[str, Any] = {"model": "vectors", "base_url": url, "api_key": "any"}
    vectors = OpenAIEmbeddings(**given, check_embedding_ctx_length=False)
    documents = vectors.embed_documents(["a fox", "a dog"])
    assert vectors.embed_query("a fox") == pytest.approx(documents[0])
    assert len(documents[1]) == 16


def test_an_unknown_model(url: str) -> None:
    with pytest.raises(openai.NotFoundError, match="chat"):
        chat(url, model="chatt").invoke("hello")


def test_a_stream_that_is_left_frees_the_upstream(url: str, slow: Upstream) -> None:
    before = slow.fake.engine.cancelled

    stream: Any = chat(url, model="slow").stream("the quick brown fox")
    assert next(piece.content for piece in stream if piece.content) == "the"
    stream.close()
    slow.wait_for(before + 1)


def test_a_stream_that_is_left_without_blocking_frees_the_upstream(url: str, slow: Upstream) -> None:
    before = slow.fake.engine.cancelled

    async def leave() -> None:
        stream: Any = chat(url, model="slow").astream("the quick brown fox")
        async for piece in stream:
            if piece.content:
                break
        # `break` alone leaves it open for as long as somebody holds it: that is how Python's generators are.
        await stream.aclose()
        # The loop still runs, and so does the client: nothing else closes the connection.
        await asyncio.to_thread(slow.wait_for, before + 1)

    asyncio.run(leave())


def test_a_reader_that_is_cancelled_frees_the_upstream(url: str, slow: Upstream) -> None:
    before = slow.fake.engine.cancelled

    async def leave() -> None:
        begun = asyncio.Event()

        async def read() -> None:
            async for piece in chat(url, model="slow").astream("the quick brown fox"):
                if piece.content:
                    begun.set()

        reading = asyncio.create_task(read())
        await begun.wait()
        reading.cancel()
        await asyncio.wait((reading,))
        await asyncio.to_thread(slow.wait_for, before + 1)

    asyncio.run(leave())


def test_a_timeout(url: str, slow: Upstream) -> None:
    before = slow.fake.engine.cancelled
    with pytest.raises(openai.APITimeoutError):
        chat(url, model="slow", timeout=0.5).invoke("the quick brown fox")
    slow.wait_for(before + 1)
