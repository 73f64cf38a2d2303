"""Clients that leave, at every stage of a request, and clients that misbehave below HTTP."""

from __future__ import annotations

import socket
from collections.abc import Callable
from typing import Any

import httpx
import pytest
from openai import APITimeoutError, OpenAI
from sage_gateway.testing import Running

HELLO = [{"role": "user", "content": "one two three"}]
Serve = Callable[..., Running]


@pytest.fixture(params=["hypercorn", "granian"])
def serve(serve: Serve, request: pytest.FixtureRequest) -> Serve:
    """Start gateways on either server."""

    def start(models: dict[str, Any] | None = None, **tables: Any) -> Running:
        gateway = {"server": request.param, **tables.pop("gateway", {})}
        return serve(models, gateway=gateway, **tables)

    return start


def raw(running: Running, data: bytes) -> bytes:
    """What comes back until the server closes."""
    with socket.create_connection(("127.0.0.1", running.port), timeout=20) as sock:
        sock.sendall(data)
        parts = []
        while part := sock.recv(65_536):
            parts.append(part)
        return b"".join(parts)


STAGES: dict[str, tuple[dict[str, Any], str, dict[str, Any]]] = {
    "prefilling": ({"ttft": 3_600}, "/v1/chat/completions", {"messages": HELLO, "stream": True}),
    "streaming": ({"tokens_per_second": 0.001}, "/v1/chat/completions", {"messages": HELLO, "stream": True}),
    "not streaming": ({"tokens_per_second": 0.001}, "/v1/chat/completions", {"messages": HELLO}),
    "completing": ({"tokens_per_second": 0.001}, "/v1/completions", {"prompt": "a b"}),
    "embedding": ({"batch_seconds": 3_600}, "/v1/embeddings", {"input": ["a", "b"]}),
    "reranking": ({"hang": "b"}, "/v1/rerank", {"query": "a", "documents": ["b"]}),
}


class TestLeaving:
    @pytest.mark.parametrize("backend", ["fake", "plain"])
    @pytest.mark.parametrize("stage", STAGES)
    def test_work_in_an_engine_is_cancelled_and_its_credit_is_back(
        self, serve: Serve, stage: str, backend: str
    ) -> None:
        options, path, body = STAGES[stage]
        running = serve({"echo": {"backend": backend, "sequences": 1, **options}})
        sock = running.send(path, {"model": "echo", **body})
        manager = running.gateway.driver.manager
        running.busy("echo")
        assert running.call(lambda: manager.held) > 0
        sock.close()
        assert running.settled()
        assert running.engine_now("echo").cancelled == 1

    def test_a_request_that_waits_leaves_the_queue(self, serve: Serve) -> None:
        running = serve({"echo": {"backend": "fake", "sequences": 1, "ttft": 3_600}})
        first = running.send("/v1/chat/completions", {"model": "echo", "messages": HELLO})
        running.busy("echo")
        (pool,) = running.call(running.gateway.driver.manager.pools.values)
        second = running.send("/v1/chat/completions", {"model": "echo", "messages": HELLO})
        running.until(lambda: len(pool.line) == 1)
        second.close()
        running.until(lambda: len(pool.line) == 0)
        # The one that is served does not notice.
        assert running.engine_now("echo").running == 1
        first.close()
        assert running.settled()

    def test_a_request_that_waits_for_its_engine_to_open(self, serve: Serve) -> None:
        running = serve({"echo": {"backend": "fake", "open_seconds": 3_600}})
        sock = running.send("/v1/chat/completions", {"model": "echo", "messages": HELLO})
        running.until(lambda: running.gateway.driver.manager.held > 0)
        sock.close()
        assert running.settled()

    def test_the_official_client_gives_up(self, serve: Serve) -> None:
        running = serve({"echo": {"backend": "fake", "ttft": 3_600}})
        client = OpenAI(base_url=f"{running.url}/v1", api_key="any", max_retries=0, timeout=0.5)
        with pytest.raises(APITimeoutError):
            client.chat.completions.create(model="echo", messages=[{"role": "user", "content": "a"}])
        assert running.settled()
        assert running.engine_now("echo").cancelled == 1

    def test_a_stream_left_by_the_official_client(self, serve: Serve) -> None:
        running = serve({"echo": {"backend": "fake", "tokens_per_second": 0.001}})
        client = OpenAI(base_url=f"{running.url}/v1", api_key="any", max_retries=0, timeout=20)
        stream = client.chat.completions.create(
            model="echo", messages=[{"role": "user", "content": "a b"}], stream=True
        )
        assert next(iter(stream)).choices[0].delta.role == "assistant"
        stream.close()
        assert running.settled()

    def test_a_client_that_does_not_read_is_given_up(self, serve: Serve) -> None:
        words = " ".join(["word"] * 400_000)
        running = serve(
            {"echo": {"backend": "fake", "context": 10**9}}, gateway={"write_timeout": "300ms", "max_body": "64MiB"}
        )
        body = {"model": "echo", "messages": [{"role": "user", "content": words}], "stream": True}
        sock = running.send("/v1/chat/completions", {**body, "max_tokens": 400_000})
        running.until(lambda: running.gateway.driver.manager.held > 0)
        assert running.settled()
        assert running.engine("echo").cancelled == 1
        sock.close()


class TestBelowHttp:
    def test_a_head_that_does_not_end_is_cut_off(self, serve: Serve) -> None:
        running = serve(gateway={"idle": "300ms"})
        assert raw(running, b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\nx-slow: ") == b""

    def test_a_body_that_does_not_end_is_cut_off(self, serve: Serve) -> None:
        running = serve(gateway={"body_timeout": "300ms"})
        head = b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-length: 100\r\n\r\n{"
        assert raw(running, head).startswith(b"HTTP/1.1 408 ")

    def test_thousands_of_headers(self, running: Running) -> None:
        headers = b"".join(b"x-header-%d: value\r\n" % number for number in range(5_000))
        assert raw(running, b"GET /health HTTP/1.1\r\nhost: x\r\n" + headers + b"\r\n").startswith(b"HTTP/1.1 431 ")

    def test_one_header_without_end(self, running: Running) -> None:
        answer = raw(running, b"GET /health HTTP/1.1\r\nhost: x\r\nx: " + b"a" * 100_000)
        assert answer.startswith(b"HTTP/1.1 431 ")

    @pytest.mark.parametrize("data", [b"\x16\x03\x01\x02\x00\x01\x00\x01", b"HELLO\r\n\r\n", b"GET /health\r\n\r\n"])
    def test_what_is_no_http(self, running: Running, data: bytes) -> None:
        answer = raw(running, data + b"\r\n\r\n")
        assert answer[:13] in (b"", b"HTTP/1.1 400 ")
        assert httpx.get(f"{running.url}/health").json() == {"status": "ok"}

    def test_a_web_socket_is_closed(self, running: Running) -> None:
        head = (
            b"GET /v1/chat/completions HTTP/1.1\r\nhost: x\r\nconnection: upgrade\r\nupgrade: websocket\r\n"
            b"sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
        )
        # Granian takes it for the request that it is otherwise.
        assert raw(running, head)[:13] in (b"HTTP/1.1 403 ", b"HTTP/1.1 405 ")


class TestBodies:
    def test_a_body_over_the_limit(self, serve: Serve) -> None:
        running = serve(gateway={"max_body": "1KiB"})
        for size in (1_100, 10_000_000):
            answer = httpx.post(f"{running.url}/v1/chat/completions", content=b" " * size)
            assert answer.status_code == 413
            assert answer.json()["error"]["code"] == "body_too_large"

    def test_a_body_over_the_limit_that_says_nothing_of_its_length(self, serve: Serve) -> None:
        running = serve(gateway={"max_body": "1KiB"})
        answer = httpx.post(f"{running.url}/v1/chat/completions", content=iter([b" " * 600] * 3))
        assert answer.status_code == 413

    @pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/completions", "/v1/embeddings", "/v1/rerank"])
    @pytest.mark.parametrize("body", [b"", b"{", b"[]", b'{"model": "\xff"}', b'{"model": 1}', b'{"model": "echo"}'])
    def test_what_is_no_request_is_refused(self, running: Running, path: str, body: bytes) -> None:
        answer = httpx.post(running.url + path, content=body)
        assert answer.status_code == 400
        assert set(answer.json()["error"]) == {"message", "type", "param", "code"}
        assert running.gateway.driver.manager.held == 0
