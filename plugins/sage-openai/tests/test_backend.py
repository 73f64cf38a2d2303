"""The backend against a real HTTP server: the contract suites, and what it does without asking anybody."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, TypeVar

import msgspec
import pytest
from sage_openai.backend import OpenAIBackend

from sage_core import Engine, ModelError, ModelSpec
from sage_core.testing import (
    BackendContract,
    EmbedderContract,
    FakeOptions,
    FakeUpstream,
    GeneratorContract,
    RerankerContract,
)
from sage_core.testing.forward_contract import ForwarderContract

T = TypeVar("T")


class Served:
    """A backend whose server is started for each engine, so that a suite needs no process of its own."""

    def __init__(self, options: FakeOptions) -> None:
        self.options = options
        self.upstream: FakeUpstream | None = None

    def identify(self, model: ModelSpec) -> str:
        return OpenAIBackend().identify(model)

    @asynccontextmanager
    async def open(self, model: ModelSpec) -> AsyncIterator[Engine]:
        async with FakeUpstream(self.options, models=("fake", model.name)) as upstream:
            self.upstream = upstream
            if "fail" in model.name:
                upstream.engine.options = msgspec.structs.replace(self.options, fail_first=1)
            here = {"base_url": upstream.url} if "base_url" in model.options else {}
            spec = msgspec.structs.replace(model, options={**model.options, **here})
            async with OpenAIBackend().open(spec) as engine:
                yield engine


SPEED = FakeOptions(sequences=100, tokens_per_second=2_000)


class _Contract(BackendContract):
    spec = ModelSpec(name="chat", backend="openai", options={"base_url": "http://localhost/v1"})
    changed_options = {"base_url": "http://other/v1", "model": "other", "extra": {"top_k": 1}}
    missing = ModelSpec(name="chat", backend="openai")

    def make_backend(self) -> Any:
        self.backend = Served(SPEED)
        return self.backend


class TestGenerator(_Contract, GeneratorContract):
    pass


class TestForwarder(_Contract, ForwarderContract):
    failing = ModelSpec(name="fails", backend="openai", options={"base_url": "http://localhost/v1", "check": False})

    def received(self, engine: Any) -> bytes | None:
        assert self.backend.upstream
        return self.backend.upstream.engine.bodies[-1]

    def cancelled(self, engine: Any) -> int | None:
        assert self.backend.upstream
        return self.backend.upstream.engine.cancelled


class TestEmbedder(_Contract, EmbedderContract):
    spec = ModelSpec(
        name="vectors", backend="openai", options={"base_url": "http://localhost/v1", "kinds": ["embed", "rerank"]}
    )


class TestReranker(_Contract, RerankerContract):
    spec = TestEmbedder.spec


def run(use: Callable[[FakeUpstream], Awaitable[T]], options: FakeOptions | None = None, **about: Any) -> T:
    async def body() -> T:
        async with FakeUpstream(options, **about) as upstream:
            return await use(upstream)

    return asyncio.run(asyncio.wait_for(body(), 20))


def spec(url: str, **options: Any) -> ModelSpec:
    return ModelSpec(name="fake", backend="openai", options={"base_url": url, **options})


async def open_it(model: ModelSpec) -> Engine:
    async with OpenAIBackend().open(model) as engine:
        return engine


def refused(use: Callable[[FakeUpstream], Awaitable[Engine]], **about: Any) -> str:
    with pytest.raises(ModelError) as caught:
        run(use, **about)
    return str(caught.value)


def test_a_server_that_is_not_there_is_named() -> None:
    async def use(upstream: FakeUpstream) -> Engine:
        await upstream.stop()
        try:
            return await open_it(spec(upstream.url))
        finally:
            await upstream.start()

    assert "onnect call failed" in refused(use) or "Connection refused" in refused(use)
    assert "help: start the server, or mend base_url" in refused(use)


def test_https_is_spoken_where_it_is_named() -> None:
    heard = []

    async def plain(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heard.append(await reader.read(2))
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        writer.close()

    async def use(upstream: FakeUpstream) -> Engine:
        async with await asyncio.start_server(plain, "127.0.0.1", 0) as server:
            return await open_it(spec(f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"))

    assert "cannot connect: [SSL" in refused(use)
    # The record type and major version of a TLS handshake.
    assert heard == [b"\x16\x03"]


def test_a_wrong_key_is_told_without_the_key() -> None:
    async def use(upstream: FakeUpstream) -> Engine:
        return await open_it(spec(upstream.url, api_key="sk-wrong"))

    said = refused(use, key="sk-right")
    assert "refuses the key (status 401)\n  help: check api_key" in said
    assert "sk-wrong" not in said


def test_an_unknown_model_lists_those_the_server_has() -> None:
    async def use(upstream: FakeUpstream) -> Engine:
        return await open_it(spec(upstream.url))

    said = refused(use, models=("qwen", "llama"))
    assert "has no model 'fake'\n  help: it has: llama, qwen; write model" in said


def test_a_model_by_its_name_there_or_unchecked_opens() -> None:
    async def use(upstream: FakeUpstream) -> list[int]:
        engines = [
            await open_it(spec(upstream.url, model="qwen")),
            await open_it(spec(upstream.url, check=False, context=77)),
        ]
        return [engine.capacity.context for engine in engines]

    assert run(use, models=("qwen",)) == [8_192, 77]


def test_identify_asks_nobody_and_imports_no_client() -> None:
    code = (
        "import sys; from sage_core import ModelSpec; import sage_openai;"
        "from sage_openai.backend import OpenAIBackend;"
        "print(OpenAIBackend().identify(ModelSpec(name='m', backend='openai', options={'base_url': 'http://no/'})));"
        "sys.exit('httptools' in sys.modules or 'numpy' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], check=False, env=dict(os.environ), capture_output=True)
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.strip()) == 32
