"""Whatever a server does wrong is one defined error, in time; whatever it does right passes unchanged."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec
import pytest
from sage_openai.backend import OpenAIBackend

from sage_core import AttemptFailed, Chunk, Forwards, InvalidRequest, ModelSpec, Request
from sage_core.testing import FakeUpstream
from sage_core.testing.upstream import Fault

BODY: dict[str, Any] = {
    "model": "fake",
    "messages": [{"role": "user", "content": "one two three four"}],
    "max_tokens": 4,
}
Within = Callable[..., Any]
Told = Callable[[Any], Awaitable[tuple[bytes, str]]]


def chat(**fields: Any) -> Request:
    body = msgspec.json.encode({**BODY, **fields})
    return Request(id="1", kind="generate", model="fake", path="/v1/chat/completions", body=body)


#: Each fault with what is told of a stream and of a whole answer.
TOLD: dict[Fault, tuple[str, str]] = {
    "status": ("status 500: told to answer 500", "status 500: told to answer 500"),
    "close": ("no answer: the server closed the connection", "no answer: the server closed the connection"),
    "hang": ("it sent nothing for 0.3 s", "it sent nothing for 0.3 s"),
    "not_http": ("no answer: what came is no HTTP", "no answer: what came is no HTTP"),
    "html": ("its answer is no JSON (text/html)", "its answer is no JSON (text/html)"),
    "not_json": ("its answer is no JSON", "its answer is no JSON"),
    "break": ("its answer broke off", "its answer broke off"),
    "stall": ("its answer stalled for 0.2 s", "its answer stalled for 0.2 s"),
    "garbage": ("its answer broke off", "its answer broke off"),
    "half": ("its stream ended in the middle", ""),
    "no_done": ("its stream ended in the middle", ""),
    "too_short": ("", "its answer broke off"),
    "too_long": ("", "its answer is no JSON"),
}


@pytest.mark.parametrize("stream", [True, False], ids=["stream", "whole"])
@pytest.mark.parametrize("fault", TOLD)
def test_what_is_passed_on_ends_in_its_error(fault: Fault, stream: bool, within: Within, told: Told) -> None:
    async def use(upstream: FakeUpstream, engine: Any) -> tuple[bytes, str]:
        upstream.fault = fault
        return await told(engine.forward(chat(stream=stream)))

    data, error = within(use)
    expected = TOLD[fault][not stream]
    assert expected in error
    assert bool(expected) == error.startswith("AttemptFailed: model 'fake': the server at http://127.0.0.1:")
    assert not (error and data.endswith(b"[DONE]\n\n")), "a dead stream looks whole"
    if fault in ("status", "close", "hang", "not_http", "html", "not_json"):
        assert not data, "another engine could not take over any more"


@pytest.mark.parametrize("fault", TOLD)
def test_a_text_of_sages_own_ends_in_its_error(fault: Fault, within: Within, told: Told) -> None:
    async def use(upstream: FakeUpstream, engine: Any) -> tuple[bytes, str]:
        upstream.fault = fault
        messages = ({"role": "user", "content": "one two three four"},)
        return await told(engine.generate(Request(id="1", kind="generate", model="fake", messages=messages)))

    _, error = within(use)
    harmless = fault in ("too_short", "too_long", "no_done")
    assert (error == "") if harmless else error.startswith("AttemptFailed: model 'fake': the server at")


@pytest.mark.parametrize("fault", [fault for fault in TOLD if fault not in ("half", "no_done")])
def test_vectors_and_scores_end_in_their_error(fault: Fault, within: Within) -> None:
    async def use(upstream: FakeUpstream, engine: Any) -> None:
        upstream.fault = fault
        with pytest.raises(AttemptFailed, match="the server at http"):
            await engine.embed(["a", "b"])
        with pytest.raises(AttemptFailed, match="the server at http"):
            await engine.rerank("a", ["b", "c"])

    within(use)


@pytest.mark.parametrize("status", [400, 404, 413, 422])
def test_what_is_the_requests_fault_is_its_answer(status: int, within: Within) -> None:
    async def use(upstream: FakeUpstream, engine: Any) -> list[Chunk]:
        upstream.fault, upstream.status = "status", status
        with pytest.raises(InvalidRequest, match=f"the server refused the request: told to answer {status}"):
            await engine.embed(["a"])
        return [chunk async for chunk in engine.forward(chat())]

    (chunk,) = within(use)
    assert chunk.status == status
    assert msgspec.json.decode(chunk.data)["error"]["message"] == f"told to answer {status}"


def test_a_client_that_leaves_cancels_the_work_and_closes_the_connection(within: Within, told: Told) -> None:
    async def use(upstream: FakeUpstream, engine: Any) -> int:
        await told(engine.forward(chat()))
        kept = upstream.connections
        stream = engine.forward(
            chat(stream=True, messages=[{"role": "user", "content": "word " * 900}], max_tokens=900)
        )
        await anext(stream)
        await stream.aclose()
        await asyncio.wait_for(upstream.quiet.wait(), 5)
        assert upstream.engine.cancelled == 1
        return kept

    assert within(use) == 1


def test_the_first_piece_is_passed_on_before_the_second_is_sent(within: Within) -> None:
    async def use(upstream: FakeUpstream, engine: Any) -> tuple[bytes, int]:
        upstream.engine.options = msgspec.structs.replace(upstream.engine.options, tokens_per_second=0.01)
        stream = engine.forward(chat(stream=True))
        first = await anext(stream)
        running = upstream.engine.running
        await stream.aclose()
        return first.data, running

    data, running = within(use, stall=30)
    assert data.count(b'"content":"one"') == 1
    assert b"two" not in data
    assert running == 1


def test_bytes_and_names_pass_unchanged_but_for_the_models(within: Within, told: Told) -> None:
    async def use(upstream: FakeUpstream, engine: Any) -> None:
        written = (
            b'{ "max_tokens":1e0, "model" : "fake","x":[1.50,"\\u00e4"] ,"messages":[{"role":"user","content":"a b"}]}'
        )
        sent = Request(id="1", kind="generate", model="fake", path="/v1/chat/completions", body=written)
        assert (await told(engine.forward(sent)))[1] == ""
        assert upstream.seen[-1].body == written
        headers = upstream.seen[-1].headers
        assert headers["authorization"] == "Bearer sk-ours"
        assert headers["accept-encoding"] == "identity"
        assert headers["x-team"] == "search"

        options = {"base_url": upstream.url, "model": "there", "check": False, "api_key": "sk-ours"}
        async with OpenAIBackend().open(ModelSpec(name="fake", backend="openai", options=options)) as other:
            assert isinstance(other, Forwards)
            assert (await told(other.forward(sent)))[1] == ""
        assert upstream.seen[-1].body == (
            b'{"max_tokens":1e0,"model":"there","x":[1.50,"\\u00e4"],"messages":[{"role":"user","content":"a b"}]}'
        )

    within(use, key="sk-ours", api_key="sk-ours", headers={"x-team": "search"})


def test_totals_come_from_the_end_of_a_stream_or_are_counted(within: Within) -> None:
    async def use(upstream: FakeUpstream, engine: Any) -> list[Chunk]:
        ends = []
        for extra in ({"stream_options": {"include_usage": True}}, {}):
            *_, last = [chunk async for chunk in engine.forward(chat(stream=True, **extra))]
            ends.append(last)
        return ends

    counted, guessed = within(use)
    assert (counted.prompt_tokens, counted.completion_tokens) == (4, 4)
    assert guessed.prompt_tokens == 0
    assert 4 <= guessed.completion_tokens <= 6, "an event without text is counted as one with"


def test_more_than_a_hundred_streams_are_open_at_once(within: Within) -> None:
    async def use(upstream: FakeUpstream, engine: Any) -> int:
        streams = [engine.forward(chat(stream=True)) for _ in range(150)]
        upstream.engine.options = msgspec.structs.replace(upstream.engine.options, tokens_per_second=0.01)
        await asyncio.gather(*(anext(stream) for stream in streams[:100]))
        running = upstream.engine.running
        assert upstream.connections == 100
        for stream in streams:
            await stream.aclose()
        return running

    assert within(use, stall=30) == 100
    # The fake's own limit is a hundred; a client that stopped at a hundred connections could not show more.


def test_an_error_inside_a_stream_ends_it(within: Within, told: Told) -> None:
    async def use(upstream: FakeUpstream, engine: Any) -> str:
        upstream.engine.options = msgspec.structs.replace(upstream.engine.options, flaky="three", after=1)
        return (await told(engine.forward(chat(stream=True))))[1]

    assert "its answer broke off" in within(use)
