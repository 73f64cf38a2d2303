"""Whatever an upstream does, a client gets one defined answer, and no credit, connection or secret stays held."""

from __future__ import annotations

import asyncio
import http.client
import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from sage_gateway.testing import Running, serving

from sage_core.serving import default_host
from sage_core.testing import FakeOptions, FakeUpstream
from sage_core.testing.upstream import Fault

sage_openai = pytest.importorskip("sage_openai", reason="the backend that speaks to upstreams")
KEY = "sk-of-the-upstream"
FOX = {"messages": [{"role": "user", "content": "the quick brown fox"}], "max_tokens": 4}
#: What comes before a first byte, so that the answer can still be another one.
EARLY: tuple[Fault, ...] = ("status", "close", "hang", "not_http", "html", "not_json")
#: What comes in the middle of a stream.
LATE: tuple[Fault, ...] = ("break", "stall", "garbage", "half", "no_done")


@contextmanager
def upstreams(count: int = 1) -> Iterator[list[FakeUpstream]]:
    """Upstreams on a loop of their own."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, name="upstream")
    thread.start()
    options = FakeOptions(sequences=100, tokens_per_second=200)
    found = [FakeUpstream(options, models=("bad",), key=KEY) for _ in range(count)]
    try:
        for each in found:
            asyncio.run_coroutine_threadsafe(each.start(), loop).result(10)
        yield found
        for each in found:
            asyncio.run_coroutine_threadsafe(each.stop(), loop).result(10)
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join(10)
        loop.close()


@pytest.fixture
def bad(tmp_path: Path) -> Iterator[tuple[FakeUpstream, Running]]:
    """An upstream, and a gateway before it, with the model ``bad``."""
    model = {"backend": "openai", "api_key": KEY, "timeout": 0.3, "stall": 0.3, "health": 0, "sequences": 8}
    with upstreams() as (upstream,):
        models = {"bad": {**model, "base_url": upstream.url, "kinds": ["generate", "embed", "rerank"]}}
        with serving(tmp_path, default_host({"openai": sage_openai}), models) as running:
            assert ask(running)[0] == 200
            yield upstream, running
            assert running.settled(), "a credit is still held"


def ask(running: Running, path: str = "chat/completions", **fields: Any) -> tuple[int, dict[str, str], bytes]:
    """Status, headers and body of an answer."""
    connection = http.client.HTTPConnection("127.0.0.1", running.port, timeout=15)
    try:
        body = json.dumps({"model": "bad", **(FOX if path == "chat/completions" else {}), **fields})
        connection.request("POST", f"/v1/{path}", body, {"content-type": "application/json"})
        answer = connection.getresponse()
        return answer.status, {name.lower(): value for name, value in answer.getheaders()}, answer.read()
    finally:
        connection.close()


def error_of(body: bytes) -> dict[str, Any]:
    """The error of an answer, in OpenAI's shape, without the upstream's key."""
    assert KEY.encode() not in body
    error: dict[str, Any] = json.loads(body)["error"]
    assert set(error) == {"message", "type", "param", "code"}
    return error


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
@pytest.mark.parametrize("fault", EARLY)
def test_what_fails_before_its_first_byte_is_an_answer_of_its_own(
    bad: tuple[FakeUpstream, Running], fault: Fault, stream: bool
) -> None:
    upstream, running = bad
    upstream.fault = fault
    status, headers, body = ask(running, stream=stream)
    assert status in (502, 503)
    assert headers["content-type"] == "application/json"
    assert "the server at http" in error_of(body)["message"]


@pytest.mark.parametrize("fault", LATE)
def test_a_stream_that_dies_ends_in_an_error_and_never_as_if_it_were_whole(
    bad: tuple[FakeUpstream, Running], fault: Fault
) -> None:
    upstream, running = bad
    upstream.fault = fault
    status, headers, body = ask(running, stream=True)
    assert status == 200
    assert headers["content-type"].startswith("text/event-stream")
    assert b"[DONE]" not in body
    *_, last = body.rstrip().split(b"\n\n")
    assert error_of(last.removeprefix(b"data: "))["code"] == "engine_failed"


@pytest.mark.parametrize("fault", ["break", "stall", "garbage", "too_short", "too_long"])
def test_a_whole_answer_that_is_not_whole_is_none(bad: tuple[FakeUpstream, Running], fault: Fault) -> None:
    upstream, running = bad
    upstream.fault = fault
    status, _, body = ask(running)
    assert status in (502, 503)
    assert "the server at http" in error_of(body)["message"]


@pytest.mark.parametrize("path", ["embeddings", "rerank"])
@pytest.mark.parametrize("fault", [*EARLY, "too_short", "break"])
def test_vectors_and_scores_fail_in_the_same_way(bad: tuple[FakeUpstream, Running], fault: Fault, path: str) -> None:
    upstream, running = bad
    upstream.fault = fault
    fields: dict[str, Any] = {"input": ["a", "b"]} if path == "embeddings" else {"query": "a", "documents": ["b", "c"]}
    status, _, body = ask(running, path, **fields)
    assert status in (502, 503)
    error_of(body)


@pytest.mark.parametrize("status", [301, 307, 401, 403, 408, 429, 503])
def test_what_is_not_the_clients_fault_is_not_told_as_if_it_were(
    bad: tuple[FakeUpstream, Running], status: int
) -> None:
    upstream, running = bad
    upstream.fault, upstream.status = "status", status
    upstream.headers = {"Location": "http://127.0.0.1:9/v1", "Retry-After": "1", "Set-Cookie": "a=b"}
    before = len(upstream.seen)
    got, headers, body = ask(running)
    assert got in (502, 503)
    assert "set-cookie" not in headers
    assert f"status {status}" in error_of(body)["message"]
    # The one that is wanted, and what the budget for retries allows.
    assert 1 <= len(upstream.seen) - before <= 3


def test_what_is_the_clients_fault_is_the_upstreams_answer(bad: tuple[FakeUpstream, Running]) -> None:
    upstream, running = bad
    upstream.fault, upstream.status = "status", 422
    got, _, body = ask(running)
    assert got == 422
    assert json.loads(body)["error"]["message"] == "told to answer 422"


def test_a_clients_key_stays_here_and_the_upstreams_there(bad: tuple[FakeUpstream, Running]) -> None:
    upstream, running = bad
    connection = http.client.HTTPConnection("127.0.0.1", running.port, timeout=15)
    headers = {"content-type": "application/json", "authorization": "Bearer sk-of-the-client", "cookie": "a=b"}
    connection.request("POST", "/v1/chat/completions", json.dumps({"model": "bad", **FOX}), headers)
    answer = connection.getresponse()
    assert answer.status == 200
    assert KEY.encode() not in answer.read()
    connection.close()
    seen = upstream.seen[-1].headers
    assert seen["authorization"] == f"Bearer {KEY}"
    assert "cookie" not in seen
    assert "sk-of-the-client" not in str(seen)


def test_an_upstream_that_comes_back_serves_again(bad: tuple[FakeUpstream, Running]) -> None:
    upstream, running = bad
    upstream.fault = "close"
    assert ask(running)[0] in (502, 503)
    upstream.fault = ""
    # What comes during the pause is served when it ends.
    assert ask(running)[0] == 200


def test_another_upstream_takes_over_before_the_first_byte(tmp_path: Path) -> None:
    with upstreams(2) as (broken, sound):
        urls = [broken.url, sound.url]
        models = {"bad": {"backend": "openai", "api_key": KEY, "base_url": urls, "health": 0}}
        with serving(tmp_path, default_host({"openai": sage_openai}), models) as running:
            assert [ask(running)[0] for _ in range(4)] == [200] * 4
            broken.fault = "status"
            taken = len(sound.seen)
            assert ask(running)[0] == ask(running)[0] == 200
            assert len(sound.seen) == taken + 2
            assert running.settled()


def test_nothing_stays_open_after_many_have_left(bad: tuple[FakeUpstream, Running]) -> None:
    upstream, running = bad
    many = {"messages": [{"role": "user", "content": "word " * 900}], "max_tokens": 900, "stream": True}
    left = []
    for _ in range(8):
        connection = http.client.HTTPConnection("127.0.0.1", running.port, timeout=15)
        connection.request("POST", "/v1/chat/completions", json.dumps({"model": "bad", **many}))
        answer = connection.getresponse()
        assert answer.read1(10)
        left.append((connection, answer))
    assert upstream.engine.running == 8
    for connection, answer in left:
        answer.close()
        connection.close()
    assert running.settled()
    # The server sees the last of them in its own time.
    running.wait(_until(lambda: upstream.engine.running == 0 and upstream.connections <= 1))
    assert upstream.engine.cancelled == 8


async def _until(true: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not true():  # noqa: ASYNC110 - it changes on another thread
            await asyncio.sleep(0.01)
