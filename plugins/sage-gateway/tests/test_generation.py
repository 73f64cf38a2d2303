"""Requests that do not come through: each ends in a defined answer, and with every credit back."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest
from openai import APIStatusError, InternalServerError, OpenAI, RateLimitError
from sage_gateway.testing import Running

Serve = Callable[..., Running]


def chat(text: str = "hello", **fields: Any) -> dict[str, Any]:
    return {"model": "echo", "messages": [{"role": "user", "content": text}], **fields}


def post(running: Running, body: dict[str, Any], path: str = "chat/completions") -> httpx.Response:
    return httpx.post(f"{running.url}/v1/{path}", json=body, timeout=20)


def client_of(running: Running) -> OpenAI:
    return OpenAI(base_url=f"{running.url}/v1", api_key="any", max_retries=0, timeout=20)


def refused(call: Callable[[], object]) -> APIStatusError:
    with pytest.raises(APIStatusError) as caught:
        call()
    return caught.value


class TestOverload:
    @pytest.fixture
    def full(self, serve: Serve) -> Iterator[Running]:
        """One request is in the engine for an hour, one waits, and that is all that may."""
        running = serve({"echo": {"backend": "fake", "ttft": 3_600, "queue": {"requests": 1}}})
        manager = running.gateway.driver.manager
        held = [running.send("/v1/chat/completions", chat())]
        running.busy("echo")
        held.append(running.send("/v1/chat/completions", chat()))
        running.until(lambda: [len(pool.line) for pool in manager.pools.values()] == [1])
        yield running
        for sock in held:
            sock.close()
        assert running.settled()

    def test_who_does_not_fit_is_told_when_to_come_back(self, full: Running) -> None:
        error = refused(lambda: client_of(full).chat.completions.create(**chat()))
        assert isinstance(error, RateLimitError)
        assert error.code == "overloaded"
        assert int(error.response.headers["retry-after"]) >= 1
        assert "the queue of model 'echo' is full: 1 requests wait" in error.message

    def test_a_policy_can_be_switched_while_they_wait(self, full: Running) -> None:
        assert httpx.put(f"{full.url}/sage/v1/policy", json={"policy": "priority"}).status_code == 200
        (pool,) = httpx.get(f"{full.url}/sage/v1/pools").json()["data"]
        assert (pool["waiting"], pool["policy"]) == (1, "priority")
        assert pool["oldest_seconds"] > 0


def test_who_waits_too_long_is_given_up(serve: Serve) -> None:
    running = serve({"echo": {"backend": "fake", "open_seconds": 3_600}}, gateway={"queue": {"wait": "100ms"}})
    answer = post(running, chat())
    assert answer.status_code == 429
    assert "waited too long" in answer.json()["error"]["message"]
    assert int(answer.headers["retry-after"]) >= 1
    assert running.settled()


@pytest.mark.parametrize("backend", ["fake", "plain"])
@pytest.mark.parametrize("stream", [False, True])
class TestEngines:
    def test_one_that_cannot_be_opened(self, serve: Serve, backend: str, stream: bool) -> None:
        running = serve({"echo": {"backend": backend, "broken": "no such weights"}})
        error = refused(lambda: client_of(running).chat.completions.create(**chat(stream=stream)))
        assert (error.status_code, error.code) == (503, "no_engine")
        assert "no such weights" in error.message
        assert running.settled()

    def test_one_that_has_a_defect(self, serve: Serve, backend: str, stream: bool) -> None:
        running = serve({"echo": {"backend": backend, "poison": "hello"}})
        error = refused(lambda: client_of(running).chat.completions.create(**chat(stream=stream)))
        assert isinstance(error, InternalServerError)
        assert (error.status_code, error.code) == (502, "engine_failed")
        assert running.settled()

    def test_one_that_fails_is_replaced_by_another_before_the_first_byte(
        self, serve: Serve, backend: str, stream: bool
    ) -> None:
        engines = [{"fail_every": 1}, {"source": "b"}]
        running = serve({"echo": {"backend": backend, "engines": engines}})
        for _ in range(6):
            answer = post(running, chat(stream=stream))
            assert answer.status_code == 200
            assert "hello" in answer.text
        assert running.settled()

    def test_all_fail(self, serve: Serve, backend: str, stream: bool) -> None:
        running = serve({"echo": {"backend": backend, "fail_every": 1}})
        error = refused(lambda: client_of(running).chat.completions.create(**chat(stream=stream)))
        assert (error.status_code, error.code) == (502, "engine_failed")
        assert running.settled()

    def test_one_that_opens_late(self, serve: Serve, backend: str, stream: bool) -> None:
        running = serve({"echo": {"backend": backend, "open_seconds": 0.2}})
        answer = post(running, chat(stream=stream))
        assert answer.status_code == 200
        assert float(answer.headers["x-sage-queue-ms"]) >= 190

    def test_one_that_dies_in_the_middle(self, serve: Serve, backend: str, stream: bool) -> None:
        running = serve({"echo": {"backend": backend, "deadly": "two", "after": 1}})
        answer = post(running, chat("one two three", stream=stream))
        assert answer.status_code == (200 if stream else 502)
        assert "[DONE]" not in answer.text
        assert answer.text.rstrip().endswith('"code":"engine_failed"}}')
        assert running.settled()


class TestKinds:
    @pytest.mark.parametrize(
        ("kind", "path", "fields"),
        [
            ("embed", "chat/completions", {"messages": [{"role": "user", "content": "a"}]}),
            ("embed", "rerank", {"query": "a", "documents": ["b"]}),
            ("generate", "embeddings", {"input": "a"}),
        ],
    )
    def test_what_a_model_cannot_do_is_the_requests_fault(
        self, serve: Serve, kind: str, path: str, fields: dict[str, Any]
    ) -> None:
        running = serve({"echo": {"backend": "fake", "kinds": [kind]}})
        answer = post(running, {"model": "echo", **fields}, path)
        assert answer.status_code == 400
        assert "it cannot" in answer.json()["error"]["message"]
        assert running.settled()

    @pytest.mark.parametrize("fields", [{"input": [1, 2]}, {"input": "a", "dimensions": 4}])
    def test_what_only_an_engine_that_speaks_the_protocol_can_do(self, serve: Serve, fields: dict[str, Any]) -> None:
        running = serve({"echo": {"backend": "plain"}})
        answer = post(running, {"model": "echo", **fields}, "embeddings")
        assert (answer.status_code, answer.json()["error"]["code"]) == (400, "unsupported")
        assert running.settled()
        assert post(running, {"model": "echo", "input": "a"}, "embeddings").status_code == 200
