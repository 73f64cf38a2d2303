"""Requests over HTTP to a gateway: every kind, what is sent beside them, refusals, broken answers, and closing."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing, asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import numpy
import pytest
from aiohttp import web

from sage_core.common.config import Config
from sage_core.common.errors import ModelError, NoEngine, RequestRejected, UsageError
from sage_core.common.host import Host
from sage_core.common.paths import Paths
from sage_core.common.records import Request
from sage_core.kernel.control_plane.client import UnifiedInferenceClient
from sage_core.testing.engines import FakeEngine, FakeOptions

QUESTION = [{"role": "user", "content": "one two three"}]


class Upstream:
    """A server that answers as a gateway does, from a fake engine; or as it is told."""

    def __init__(self, **options: Any) -> None:
        self.engine = FakeEngine("m", FakeOptions(sequences=8, **options))
        self.seen: list[tuple[str, dict[str, str]]] = []
        self.says: Callable[[], web.StreamResponse] | None = None
        self.url = ""

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[Upstream]:
        app = web.Application(client_max_size=2**26)
        app.router.add_route("*", "/{path:.*}", self._answer)
        runner = web.AppRunner(app, handler_cancellation=True)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        self.url = f"http://127.0.0.1:{runner.addresses[0][1]}/v1"
        try:
            yield self
        finally:
            await runner.cleanup()

    async def _answer(self, incoming: web.Request) -> web.StreamResponse:
        headers = {name.lower(): value for name, value in incoming.headers.items()}
        self.seen.append((incoming.path, headers))
        if self.says is not None:
            return self.says()
        if incoming.method == "GET":
            return web.json_response({"id": "m"})
        if incoming.path == "/sage/v1/tokenize":
            spans = await self.engine.tokenize((await incoming.json())["input"])
            return web.json_response({"data": [{"index": at, "spans": each} for at, each in enumerate(spans)]})
        request = Request(id="r", kind="generate", model="m", path=incoming.path, body=await incoming.read())
        response: web.StreamResponse | None = None
        stream: Any = self.engine.forward(request)
        async with aclosing(stream) as chunks:
            async for chunk in chunks:
                if response is None:
                    response = web.StreamResponse(status=chunk.status, headers={"content-type": chunk.content_type})
                    await response.prepare(incoming)
                await response.write(chunk.data)
        assert response is not None
        return response


def run(
    folder: Path,
    upstream: Upstream,
    use: Callable[[UnifiedInferenceClient], Awaitable[None]],
    monkeypatch: pytest.MonkeyPatch | None = None,
) -> None:
    paths = Paths(project=folder / "project", data=folder / "data", runtime=folder / "run")

    async def main() -> None:
        async with upstream.serving():
            config = Config(gateway={"url": upstream.url})
            if monkeypatch is not None:
                monkeypatch.setenv("SAGE_GATEWAY_URL", upstream.url)
                monkeypatch.setenv("SAGE_GATEWAY_KEY", "sk-secret")
                config = Config(gateway={"url": "http://127.0.0.1:9"})
            client = UnifiedInferenceClient.create({}, paths=paths, host=Host({}), config=config)
            async with client as opened:
                await use(opened)

    asyncio.run(main())


def test_every_kind_is_answered_over_http(tmp_path: Path) -> None:
    upstream = Upstream()

    async def use(client: UnifiedInferenceClient) -> None:
        tokens = [token async for token in client.chat("m", QUESTION, max_tokens=2)]
        assert [token.text for token in tokens] == ["one", " two", ""]
        assert (tokens[-1].finish, tokens[-1].prompt_tokens, tokens[-1].completion_tokens) == ("length", 3, 2)
        assert "".join([token.text async for token in client.completion("m", "go on")]) == "go on"
        texts = [f"text {n}" for n in range(2_100)]
        vectors = await client.embed("m", texts)
        assert vectors.dtype == numpy.float32
        assert (vectors == await FakeEngine("m", FakeOptions()).embed(texts)).all()
        assert await client.rerank("m", "a b", ["c", "a", "a b"]) == [0.0, 1 / 3, 2 / 3]
        assert (await client.info("m")).kinds == ("generate", "embed", "rerank", "tokenize")
        assert await client.tokenize("m", ["a bc"] * 2_049) == [[(0, 1), (2, 4)]] * 2_049

    run(tmp_path, upstream, use)
    assert [len(batch) for batch in upstream.engine.batches] == [2_048, 52]


def test_a_schema_a_seed_and_stops_are_asked_for(tmp_path: Path) -> None:
    upstream = Upstream()

    async def use(client: UnifiedInferenceClient) -> None:
        answer = client.chat("m", QUESTION, seed=7, stop=["x"], temperature=0.5, schema={"type": "object"})
        assert [token async for token in answer]

    run(tmp_path, upstream, use)
    body = msgspec.json.decode(upstream.engine.bodies[0])
    assert body["response_format"]["json_schema"]["schema"] == {"type": "object"}
    assert (body["seed"], body["stop"], body["temperature"], body["max_tokens"]) == (7, ["x"], 0.5, 256)


def test_who_asks_and_by_when_goes_with_the_request_and_the_environment_before_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    upstream = Upstream()

    async def use(client: UnifiedInferenceClient) -> None:
        bound = client.bound(
            deadline=5.0, ttft=0.2, tpot=0.05, run="r1", step="ask", worker="w", service_class="interactive", priority=3
        )
        assert [token async for token in bound.chat("m", QUESTION)]

    run(tmp_path, upstream, use, monkeypatch)
    ((path, headers),) = upstream.seen
    assert path == "/v1/chat/completions"
    assert headers["authorization"] == "Bearer sk-secret"
    assert 1_000 < float(headers.pop("x-sage-slo-e2e-ms")) <= 5_000
    sent = {name: value for name, value in headers.items() if name.startswith("x-sage")}
    assert sent == {
        "x-sage-run": "r1",
        "x-sage-step": "ask",
        "x-sage-worker": "w",
        "x-sage-class": "interactive",
        "x-sage-priority": "3",
        "x-sage-slo-ttft-ms": "200.000",
        "x-sage-slo-tpot-ms": "50.000",
    }


def test_closing_a_stream_closes_the_connection(tmp_path: Path) -> None:
    upstream = Upstream(tokens_per_second=100.0, text="markov")

    async def use(client: UnifiedInferenceClient) -> None:
        stream: Any = client.chat("m", QUESTION, max_tokens=1_000)
        async with aclosing(stream) as tokens:
            await anext(tokens)
        while not upstream.engine.cancels:  # noqa: ASYNC110 - the server hears of it in its own time
            await asyncio.sleep(0.01)

    run(tmp_path, upstream, use)


def refusal(status: int, message: str, **headers: str) -> Callable[[], web.Response]:
    body = {"error": {"message": message, "type": "t", "param": None, "code": None}}
    return lambda: web.json_response(body, status=status, headers=headers)


def said(text: bytes) -> Callable[[], web.Response]:
    return lambda: web.Response(body=text, content_type="text/event-stream")


@pytest.mark.parametrize(
    ("says", "error", "text"),
    [
        (refusal(429, "full", **{"retry-after": "7"}), RequestRejected, r"request rejected: full; retry after 7.0 s"),
        (refusal(503, "starting"), NoEngine, r"model 'm' has no engine: starting"),
        (refusal(404, "no such model"), ModelError, r"says: no such model"),
        (refusal(401, "who?"), ModelError, r"refuses the key: who\?\n  help: set SAGE_GATEWAY_KEY"),
        (lambda: web.Response(status=502, text="<html>"), ModelError, r"says: HTTP status 502"),
        (said(b'data: {"choices":[{"delta":{"content":"a"}}]}\n\n'), ModelError, r"ended the answer before its end"),
        (said(b'data: {"error":{"message":"engine died"}}\n\n'), ModelError, r"model 'm': engine died"),
        (said(b"data: {garbage\n\n"), ModelError, r"cannot be used: DecodeError"),
        (said(b'data: {"choices":[{}]}\n\n'), ModelError, r"cannot be used: KeyError"),
    ],
)
def test_what_a_gateway_has_against_a_request_is_its_error(
    tmp_path: Path, says: Callable[[], web.StreamResponse], error: type[Exception], text: str
) -> None:
    upstream = Upstream()
    upstream.says = says

    async def use(client: UnifiedInferenceClient) -> None:
        with pytest.raises(error, match=text):
            async for _ in client.chat("m", QUESTION):
                pass

    run(tmp_path, upstream, use)


def test_a_gateway_that_is_not_there_is_named(tmp_path: Path) -> None:
    paths = Paths(project=tmp_path, data=tmp_path, runtime=tmp_path)

    async def main() -> None:
        config = Config(gateway={"url": "http://127.0.0.1:9"})
        async with UnifiedInferenceClient.create({}, paths=paths, host=Host({}), config=config) as client:
            with pytest.raises(ModelError, match=r"the gateway at http://127.0.0.1:9 cannot be used: .*\n  help: is"):
                await client.embed("m", ["a"])

    asyncio.run(main())


def test_without_aiohttp_it_is_said_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "aiohttp", None)
    paths = Paths(project=tmp_path, data=tmp_path, runtime=tmp_path)

    async def main() -> None:
        config = Config(gateway={"url": "http://127.0.0.1:9"})
        async with UnifiedInferenceClient.create({}, paths=paths, host=Host({}), config=config) as client:
            with pytest.raises(UsageError, match=r"aiohttp, .* is not installed\n  help: pip install 'sage-core\[gate"):
                await client.embed("m", ["a"])

    asyncio.run(main())
