"""The official client, unchanged, against `sage serve` before an OpenAI-compatible server."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Iterator
from typing import Any, cast

import openai
import pytest
from openai import AsyncOpenAI, OpenAI
from openai.types.chat import ChatCompletionMessageParam, ChatCompletionToolParam
from openai.types.responses import FunctionToolParam, ResponseFunctionToolCall

from tests.clients.conftest import Upstream

FOX: list[ChatCompletionMessageParam] = [{"role": "user", "content": "the quick brown fox jumps"}]
CITY: dict[str, object] = {"type": "object", "properties": {"city": {"type": "string"}}}
TOOL: ChatCompletionToolParam = {"type": "function", "function": {"name": "weather", "parameters": CITY}}


@pytest.fixture
def client(url: str) -> Iterator[OpenAI]:
    with OpenAI(base_url=url, api_key="any", max_retries=0, timeout=20) as made:
        yield made


class TestSmoke:
    """The part that runs without the other clients."""

    def test_a_chat(self, client: OpenAI) -> None:
        answer = client.chat.completions.create(model="chat", messages=FOX, max_tokens=3)
        assert answer.choices[0].message.content == "the quick brown"
        assert answer.choices[0].finish_reason == "length"
        assert answer.usage
        assert (answer.usage.prompt_tokens, answer.usage.completion_tokens) == (5, 3)

    def test_a_stream_with_its_totals(self, client: OpenAI) -> None:
        stream = client.chat.completions.create(
            model="chat", messages=FOX, stream=True, stream_options={"include_usage": True}
        )
        chunks = list(stream)
        text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
        assert text == "the quick brown fox jumps"
        assert chunks[-1].usage
        assert chunks[-1].usage.completion_tokens == 5

    def test_totals_come_to_those_who_ask(self, client: OpenAI) -> None:
        chunks = list(client.chat.completions.create(model="chat", messages=FOX, stream=True))
        assert all(chunk.usage is None and chunk.choices for chunk in chunks)

    def test_vectors(self, client: OpenAI) -> None:
        # The client asks for base64 by itself, and unpacks it.
        packed = client.embeddings.create(model="vectors", input=["a fox", "a dog"])
        plain = client.embeddings.create(model="vectors", input=["a fox", "a dog"], encoding_format="float")
        assert [row.index for row in packed.data] == [0, 1]
        for one, other in zip(packed.data, plain.data, strict=True):
            assert one.embedding == pytest.approx(other.embedding, abs=1e-6)
        assert len(packed.data[0].embedding) == 16

    def test_the_models(self, client: OpenAI) -> None:
        assert {model.id for model in client.models.list()} >= {"chat", "slow", "vectors"}


def test_the_first_chunk_comes_before_the_upstream_sends_its_second(client: OpenAI, slow: Upstream) -> None:
    with client.chat.completions.create(model="slow", messages=FOX, stream=True) as stream:
        text = next(chunk.choices[0].delta.content for chunk in stream if chunk.choices[0].delta.content)
        assert text == "the"
        assert slow.fake.engine.running == 1


def test_a_tool_is_called(client: OpenAI) -> None:
    answer = client.chat.completions.create(model="chat", messages=FOX, tools=[TOOL])
    calls = answer.choices[0].message.tool_calls
    assert answer.choices[0].finish_reason == "tool_calls"
    assert calls
    assert calls[0].type == "function"
    assert calls[0].function.name == "weather"


def test_a_tool_is_called_in_a_stream(client: OpenAI) -> None:
    chunks = client.chat.completions.create(model="chat", messages=FOX, tools=[TOOL], stream=True)
    calls = [call for chunk in chunks for choice in chunk.choices for call in choice.delta.tool_calls or ()]
    assert calls
    assert [call.function.name for call in calls if call.function and call.function.name] == ["weather"]


def test_what_only_the_upstream_knows_reaches_it(client: OpenAI, quick: Upstream) -> None:
    schema: Any = {"name": "legs", "schema": {"type": "object", "properties": {"legs": {"type": "integer"}}}}
    answer = client.chat.completions.create(
        model="chat",
        messages=FOX,
        n=2,
        logprobs=True,
        response_format={"type": "json_schema", "json_schema": schema},
        extra_body={"top_k": 7},
    )
    assert len(answer.choices) == 2
    assert answer.choices[0].logprobs
    sent = json.loads(quick.fake.engine.bodies[-1])
    assert sent["top_k"] == 7
    assert sent["response_format"]["json_schema"] == schema


def test_a_text_is_continued(client: OpenAI) -> None:
    assert client.completions.create(model="chat", prompt="one two three", max_tokens=2).choices[0].text == "one two"


def test_an_unknown_model_names_the_known_ones(client: OpenAI) -> None:
    with pytest.raises(openai.NotFoundError, match="chat") as caught:
        client.chat.completions.create(model="chatt", messages=FOX)
    assert caught.value.code == "model_not_found"


def test_a_wrong_request_is_told(client: OpenAI) -> None:
    with pytest.raises(openai.BadRequestError):
        client.chat.completions.create(model="chat", messages=cast(Any, "no list"))
    with pytest.raises(openai.BadRequestError):
        client.chat.completions.create(model="vectors", messages=FOX)


def test_a_failing_upstream_is_an_error_of_the_server(client: OpenAI, quick: Upstream) -> None:
    quick.fake.fault = "status"
    with pytest.raises(openai.InternalServerError) as caught:
        client.chat.completions.create(model="chat", messages=FOX)
    assert caught.value.status_code in (502, 503)
    quick.fake.fault = ""
    # Its pause is over soon, and the client's own retries bring the answer.
    patient = client.with_options(max_retries=5)
    assert patient.chat.completions.create(model="chat", messages=FOX).choices[0].message.content


def test_a_stream_that_breaks_is_an_error_and_not_an_end(client: OpenAI, slow: Upstream) -> None:
    slow.fake.fault = "break"
    stream = client.chat.completions.create(model="slow", messages=FOX, stream=True)
    with pytest.raises(openai.APIError, match="broke off"):
        list(stream)


def test_a_client_that_waits_no_longer_frees_the_upstream(client: OpenAI, slow: Upstream) -> None:
    before = slow.fake.engine.cancelled
    with pytest.raises(openai.APITimeoutError):
        client.with_options(timeout=0.5).chat.completions.create(model="slow", messages=FOX)
    slow.wait_for(before + 1)


def test_a_stream_that_is_left_frees_the_upstream(client: OpenAI, slow: Upstream) -> None:
    before = slow.fake.engine.cancelled
    with client.chat.completions.create(model="slow", messages=FOX, stream=True) as stream:
        next(iter(stream))
    slow.wait_for(before + 1)


def test_many_at_once(url: str) -> None:
    async def ask() -> list[str | None]:
        async with AsyncOpenAI(base_url=url, api_key="any", max_retries=0, timeout=20) as client:
            asked = [
                client.chat.completions.create(model="chat", messages=[{"role": "user", "content": f"number {n}"}])
                for n in range(120)
            ]
            return [answer.choices[0].message.content for answer in await asyncio.gather(*asked)]

    assert asyncio.run(ask()) == [f"number {n}" for n in range(120)]


def test_a_batch(client: OpenAI) -> None:
    lines = [
        {
            "custom_id": f"c{n}",
            "method": "POST",
            "url": "/v1/chat/completions",
            "body": {"model": "chat", "messages": [{"role": "user", "content": f"line {n}"}]},
        }
        for n in range(6)
    ]
    content = "\n".join(json.dumps(line) for line in lines).encode()
    file = client.files.create(file=("lines.jsonl", content), purpose="batch")
    batch = client.batches.create(
        input_file_id=file.id, endpoint="/v1/chat/completions", completion_window="24h", metadata={"of": "tests"}
    )
    until = time.monotonic() + 60
    while (found := client.batches.retrieve(batch.id)).status not in ("completed", "failed", "expired", "cancelled"):
        assert time.monotonic() < until, found
        time.sleep(0.1)
    assert found.status == "completed", found
    assert found.output_file_id
    rows = [json.loads(line) for line in client.files.content(found.output_file_id).text.splitlines()]
    said = {row["custom_id"]: row["response"]["body"]["choices"][0]["message"]["content"] for row in rows}
    assert said == {f"c{n}": f"line {n}" for n in range(6)}


def test_a_response(client: OpenAI) -> None:
    answer = client.responses.create(model="chat", input="the quick brown fox", max_output_tokens=16)
    assert "quick" in answer.output_text


def test_a_response_in_a_stream(client: OpenAI) -> None:
    kinds = [event.type for event in client.responses.create(model="chat", input="the quick brown fox", stream=True)]
    assert kinds[0] == "response.created"
    assert kinds[-1] == "response.completed"
    assert "response.output_text.delta" in kinds


def test_a_function_over_responses(client: OpenAI) -> None:
    function: FunctionToolParam = {"type": "function", "name": "weather", "parameters": CITY, "strict": False}
    asked: list[Any] = [{"role": "user", "content": "the quick brown fox"}]
    with client.responses.stream(model="chat", input=asked, tools=[function]) as stream:
        kinds = {event.type for event in stream}
        (call,) = stream.get_final_response().output
    assert "response.function_call_arguments.delta" in kinds
    assert isinstance(call, ResponseFunctionToolCall)
    assert (call.name, json.loads(call.arguments)) == ("weather", {"text": "the quick brown fox"})
    asked += [call, {"type": "function_call_output", "call_id": call.call_id, "output": "rain"}]
    answer = client.responses.create(model="chat", input=asked)
    assert "rain" in answer.output_text


def test_a_conversation_is_not_kept_and_the_answer_says_so(client: OpenAI) -> None:
    first = client.responses.create(model="chat", input="the quick brown fox")
    with pytest.raises(openai.BadRequestError, match="send the earlier items"):
        client.responses.create(model="chat", input="and then?", previous_response_id=first.id)
