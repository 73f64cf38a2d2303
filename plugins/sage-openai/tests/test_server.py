"""The connections to a server: what its refusals mean, which are used again, and whether it lives."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec
import pytest
from sage_openai.connection import Connection
from sage_openai.options import read_options
from sage_openai.server import Server

from sage_core import AttemptFailed, ModelError, ModelSpec, Request, Watched
from sage_core.testing import FakeUpstream

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


@pytest.mark.parametrize(
    ("status", "headers", "pause"),
    [
        (429, {"Retry-After": "7"}, 7.0),
        (429, {}, 1.0),
        (429, {"Retry-After": "999999"}, 3_600.0),
        (429, {"Retry-After": "Thu, 01 Jan 1970 00:00:00 GMT"}, 0.0),
        (503, {"Retry-After": "2"}, 2.0),
        (500, {"Retry-After": "2"}, 0.0),
        (301, {"Location": "http://169.254.169.254/"}, 0.0),
        (401, {}, 0.0),
        (403, {}, 0.0),
    ],
)
def test_a_status_that_is_not_the_requests_fault_is_for_another_engine(
    status: int, headers: dict[str, str], pause: float, within: Within
) -> None:
    async def use(upstream: FakeUpstream, engine: Any) -> AttemptFailed:
        upstream.fault, upstream.status, upstream.headers = "status", status, headers
        with pytest.raises(AttemptFailed, match=f"status {status}: told to answer {status}") as caught:
            await anext(engine.forward(chat()))
        assert len(upstream.seen) == 2, "one for the dimension, one that failed; nothing followed"
        return caught.value

    assert within(use).pause == pause


def test_a_connection_is_used_again_and_one_that_was_closed_meanwhile_costs_nothing(within: Within, told: Told) -> None:
    async def use(upstream: FakeUpstream, engine: Any) -> list[int]:
        counts = []
        for _ in range(3):
            assert (await told(engine.forward(chat(stream=True))))[1] == ""
            counts.append(upstream.accepted)
        await upstream.stop()
        await upstream.start()
        assert (await told(engine.forward(chat())))[1] == ""
        return counts

    assert within(use) == [1, 1, 1]


def test_a_key_that_a_server_repeats_is_not_told(within: Within, told: Told) -> None:
    async def use(upstream: FakeUpstream, engine: Any) -> str:
        upstream.key = "sk-rotated"
        return (await told(engine.forward(chat())))[1]

    error = within(use, key="sk-ours", api_key="sk-ours")
    assert "it refuses the key: check api_key (status 401: wrong key: Bearer …)" in error


def test_a_silent_server_that_is_gone_is_told(within: Within) -> None:
    async def use(upstream: FakeUpstream, engine: Any) -> str:
        watch = asyncio.create_task(engine.watch())
        before = upstream.looks
        while upstream.looks < before + 2:  # noqa: ASYNC110 - the fake counts and tells nobody
            await asyncio.sleep(0.005)
        await upstream.stop()
        try:
            with pytest.raises(ModelError) as caught:
                await watch
        finally:
            await upstream.start()
        return str(caught.value)

    said = within(use, health=0.02)
    assert "is gone" in said
    assert "help: start it again" in said


def test_an_ill_server_is_looked_at_until_it_is_given_up(within: Within) -> None:
    async def use(upstream: FakeUpstream, engine: Any) -> None:
        assert isinstance(engine, Watched)
        upstream.fault, upstream.status = "status", 503
        with pytest.raises(ModelError, match="is gone: it answers with status 503"):
            await engine.watch()

    within(use, health=0.02)


def test_a_server_that_answers_is_not_looked_at(within: Within, told: Told) -> None:
    async def use(upstream: FakeUpstream, engine: Any) -> int:
        upstream.engine.options = msgspec.structs.replace(upstream.engine.options, tokens_per_second=250)
        watch = asyncio.create_task(engine.watch())
        before = upstream.looks
        request = chat(stream=True, messages=[{"role": "user", "content": "word " * 200}], max_tokens=200)
        assert (await told(engine.forward(request)))[1] == ""
        looks = upstream.looks - before
        watch.cancel()
        return looks

    assert within(use, health=0.5) == 0


def test_an_answer_that_is_packed_although_it_was_asked_not_to_be_is_told(within: Within, told: Told) -> None:
    async def use(upstream: FakeUpstream, engine: Any) -> str:
        upstream.fault, upstream.status, upstream.headers = "status", 200, {"content-encoding": "gzip"}
        return (await told(engine.forward(chat())))[1]

    assert "it packs its answer with gzip, which it was asked not to do" in within(use)


def test_an_answer_that_ends_after_its_engine_was_given_up_leaves_no_connection() -> None:
    async def use() -> None:
        async with FakeUpstream() as upstream:
            spec = ModelSpec(name="fake", backend="openai", options={"base_url": upstream.url})
            async with Server(spec, read_options(spec)) as server:
                answer = await server.post("/chat/completions", msgspec.json.encode(BODY))
            with answer:
                assert b"one two three four" in await answer.whole()
            await asyncio.wait_for(upstream.quiet.wait(), 5)

    asyncio.run(use())


class Watching(Server):
    """Shows the connection it made last."""

    last: Connection | None = None

    async def _connect(self) -> Connection:
        connection = self.last = await super()._connect()
        return connection


def test_whoever_leaves_when_the_answer_has_just_come_leaves_no_connection_behind() -> None:
    async def use() -> None:
        loop = asyncio.get_running_loop()
        async with FakeUpstream() as upstream:
            spec = ModelSpec(name="fake", backend="openai", options={"base_url": upstream.url})
            server = Watching(spec, read_options(spec))
            async with server:
                asking = asyncio.ensure_future(server.post("/chat/completions", msgspec.json.encode(BODY)))

                def look() -> None:
                    if server.last is not None and server.last.complete:
                        asking.cancel()
                    elif not asking.done():
                        loop.call_soon(look)

                look()
                with pytest.raises(asyncio.CancelledError):
                    await asking
            await asyncio.wait_for(upstream.quiet.wait(), 5)

    asyncio.run(use())
