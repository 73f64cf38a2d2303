"""Chats over real HTTP: with the official client, and byte by byte where bytes are what counts."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import httpx
import pytest
from openai import APIError, BadRequestError, OpenAI
from openai.types.chat import ChatCompletionMessageParam, ChatCompletionStreamOptionsParam
from sage_gateway.testing import Running

HELLO: list[ChatCompletionMessageParam] = [{"role": "user", "content": "one two three"}]
USAGE: ChatCompletionStreamOptionsParam = {"include_usage": True}
Serve = Callable[..., Running]


@pytest.fixture(params=["fake", "plain"])
def client(request: pytest.FixtureRequest, serve: Serve) -> OpenAI:
    """Of an engine whose own bytes are passed on, and of one whose tokens are rendered."""
    running = serve({"echo": {"backend": request.param, "sequences": 8}})
    return OpenAI(base_url=f"{running.url}/v1", api_key="any", max_retries=0, timeout=20)


def post(running: Running, body: dict[str, Any], **headers: str) -> httpx.Response:
    return httpx.post(f"{running.url}/v1/chat/completions", json=body, headers=headers, timeout=20)


class TestClient:
    def test_an_answer(self, client: OpenAI) -> None:
        said = client.chat.completions.create(model="echo", messages=HELLO)
        assert said.choices[0].message.content == "one two three"
        assert said.choices[0].finish_reason == "stop"
        assert said.usage
        assert said.usage.total_tokens == 6

    def test_a_limit(self, client: OpenAI) -> None:
        said = client.chat.completions.create(model="echo", messages=HELLO, max_completion_tokens=2)
        assert said.choices[0].message.content == "one two"
        assert said.choices[0].finish_reason == "length"

    def test_a_stream_has_no_usage_that_was_not_asked_for(self, client: OpenAI) -> None:
        chunks = list(client.chat.completions.create(model="echo", messages=HELLO, stream=True))
        assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == "one two three"
        assert chunks[0].choices[0].delta.role == "assistant"
        assert chunks[-1].choices[0].finish_reason == "stop"
        assert [chunk.usage for chunk in chunks if chunk.usage] == []

    def test_a_stream_with_usage(self, client: OpenAI) -> None:
        chunks = list(client.chat.completions.create(model="echo", messages=HELLO, stream=True, stream_options=USAGE))
        assert [chunk.usage.total_tokens for chunk in chunks if chunk.usage] == [6]
        assert chunks[-1].choices == []

    def test_parts_of_text(self, client: OpenAI) -> None:
        parts: list[ChatCompletionMessageParam] = [{"role": "user", "content": [{"type": "text", "text": "a b"}]}]
        said = client.chat.completions.create(model="echo", messages=parts)
        assert said.choices[0].message.content == "a b"


class TestPassedOn:
    """What an engine that speaks the protocol gets, and what comes of its answer."""

    FIELDS: dict[str, Any] = {
        "model": "echo",
        "messages": [{"role": "user", "content": "one two"}],
        "n": 2,
        "logprobs": True,
        "tools": [{"type": "function", "function": {"name": "say", "parameters": {}}}],
        "response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": {"type": "object"}}},
        "a_field_of_tomorrow": {"deep": [1, 2.50, None]},
    }

    def test_the_body_is_the_clients_own(self, running: Running) -> None:
        body = json.dumps(self.FIELDS, indent=3).encode()
        answer = httpx.post(f"{running.url}/v1/chat/completions", content=body).json()
        assert running.engine("echo").bodies == [body]
        assert len(answer["choices"]) == 2
        assert answer["choices"][0]["message"]["tool_calls"][0]["function"]["name"] == "say"

    def test_a_stream_asks_for_its_totals_and_changes_nothing_else(self, running: Running) -> None:
        body = (
            json.dumps({**self.FIELDS, "stream": True, "stream_options": {"more": 1}}).replace("2.5", "2.50").encode()
        )
        answer = httpx.post(f"{running.url}/v1/chat/completions", content=body).text
        (sent,) = running.engine("echo").bodies
        assert json.loads(sent) == {**json.loads(body), "stream_options": {"more": 1, "include_usage": True}}
        assert b"2.50" in sent
        assert '"usage"' not in answer
        assert answer.endswith("data: [DONE]\n\n")

    def test_a_refusal_of_the_engine_is_its_own(self, running: Running) -> None:
        answer = post(running, {"model": "echo", "messages": [{"role": "user", "content": "x"}], "seed": 2})
        assert answer.status_code == 200
        answer = post(running, {"model": "echo", "messages": [{"role": "user", "content": "x"}], "stop": [1]})
        assert answer.status_code == 400

    def test_the_first_chunk_is_out_before_the_second_is_made(self, serve: Serve) -> None:
        # An hour between two tokens.
        running = serve({"slow": {"backend": "fake", "tokens_per_second": 1 / 3600}})
        body = {"model": "slow", "messages": HELLO, "stream": True}
        with httpx.stream("POST", f"{running.url}/v1/chat/completions", json=body, timeout=20) as answer:
            lines = answer.iter_lines()
            assert json.loads(next(lines).removeprefix("data: "))["choices"][0]["delta"]["role"] == "assistant"
            engine = running.engine("slow")
            assert running.call(lambda: engine.running) == 1
        assert running.settled()
        # It had written that one token only.
        assert [tokens for _, tokens in engine.cancels] == [1]

    def test_a_stream_that_dies_ends_as_an_error(self, serve: Serve) -> None:
        running = serve({"dying": {"backend": "fake", "flaky": "two", "after": 2}})
        client = OpenAI(base_url=f"{running.url}/v1", api_key="any", max_retries=0)
        stream = iter(client.chat.completions.create(model="dying", messages=HELLO, stream=True))
        assert [next(stream).choices[0].delta.content for _ in range(3)] == ["", "one", " two"]
        with pytest.raises(APIError, match="no taste for 'two'"):
            next(stream)
        raw = post(running, {"model": "dying", "messages": HELLO, "stream": True}).text
        assert "[DONE]" not in raw
        assert json.loads(raw.rstrip().rsplit("data: ", 1)[1])["error"]["code"] == "engine_failed"
        assert running.settled()


class TestRendered:
    """What an engine that only writes tokens cannot do is refused, by name."""

    @pytest.mark.parametrize(
        ("field", "value"),
        [("n", 2), ("logprobs", True), ("tools", [{"type": "function", "function": {"name": "say"}}])],
    )
    def test_parameters(self, serve: Serve, field: str, value: object) -> None:
        running = serve({"echo": {"backend": "plain"}})
        for stream in (False, True):
            answer = post(running, {"model": "echo", "messages": HELLO, field: value, "stream": stream})
            assert answer.status_code == 400
            assert answer.json()["error"]["param"] == field
        assert running.settled()

    def test_images(self, serve: Serve) -> None:
        running = serve({"echo": {"backend": "plain"}})
        content = [{"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}]
        answer = post(running, {"model": "echo", "messages": [{"role": "user", "content": content}]})
        assert answer.json()["error"] == {
            "message": "the engines of model 'echo' cannot serve 'messages'",
            "type": "invalid_request_error",
            "param": "messages",
            "code": "unsupported",
        }

    def test_tools_that_may_not_be_called_are_no_obstacle(self, serve: Serve) -> None:
        running = serve({"echo": {"backend": "plain"}})
        tools = [{"type": "function", "function": {"name": "say"}}]
        answer = post(running, {"model": "echo", "messages": HELLO, "tools": tools, "tool_choice": "none"})
        assert answer.json()["choices"][0]["message"]["content"] == "one two three"


def test_headers_tell_what_happened(running: Running) -> None:
    headers = post(running, {"model": "echo", "messages": HELLO}).headers
    assert headers["x-sage-request-id"].startswith("req-")
    assert headers["x-sage-engine"] == running.call(lambda: running.gateway.info("echo")).id  # type: ignore[union-attr]
    assert float(headers["x-sage-queue-ms"]) > 0
    assert float(headers["x-sage-overhead-ms"]) >= 0


def test_a_prompt_that_cannot_fit_is_refused_before_it_is_sent(serve: Serve) -> None:
    running = serve({"tiny": {"backend": "fake", "context": 8}})
    client = OpenAI(base_url=f"{running.url}/v1", api_key="any", max_retries=0)
    client.chat.completions.create(model="tiny", messages=HELLO)
    with pytest.raises(BadRequestError) as caught:
        client.chat.completions.create(model="tiny", messages=[{"role": "user", "content": "a" * 2_000}])
    assert caught.value.code == "context_length_exceeded"
    assert len(running.engine("tiny").bodies) == 1


@pytest.mark.parametrize("options", [None, {}, {"include_usage": None}])
def test_stream_options_that_say_nothing_are_taken(client: OpenAI, options: object) -> None:
    stream = client.chat.completions.create(
        model="echo", messages=HELLO, stream=True, extra_body={"stream_options": options}
    )
    assert "".join(chunk.choices[0].delta.content or "" for chunk in stream) == "one two three"


def test_more_answers_than_an_engine_gives_are_refused_by_it(running: Running) -> None:
    told = post(running, {"model": "echo", "messages": HELLO, "n": 10**9})
    assert (told.status_code, told.json()["error"]["message"]) == (400, "n is a number from 1 to 128")
