"""What a vLLM engine adds to sage-openai's: figures to look at, and what others hold of a server that is adopted."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from sage_vllm.backend import VllmBackend
from sage_vllm.engine import VllmEngine, capacity_of, copies, metrics_of, server_options
from sage_vllm.figures import Limits
from sage_vllm.options import Options

from sage_core import ModelSpec, Occupancy, Request, Shared

from .conftest import Fake, eventually


def run(body: Any) -> Any:
    return asyncio.run(asyncio.wait_for(body, 30))


def asks(**body: Any) -> Request:
    return Request(id="1", kind="generate", model="chat", path="/v1/completions", body=json.dumps(body).encode())


def address(fake: Fake) -> dict[str, Any]:
    """How the server that the fake has started is adopted."""
    argv, said = fake.seen["argv"], fake.seen["environment"]
    return {
        "base_url": f"http://127.0.0.1:{argv[argv.index('--port') + 1]}/v1",
        "api_key": said["SAGE_VLLM_KEY"],
    }


@asynccontextmanager
async def adopted(fake: Fake, **options: Any) -> AsyncIterator[VllmEngine]:
    """An engine on a server of somebody else's, who runs three requests and lets one wait."""
    async with VllmBackend().open(fake.spec()):
        spec = ModelSpec(name="chat", backend="vllm", options={**address(fake), "figures": 0.01, **options})
        async with VllmBackend().open(spec) as engine:
            assert isinstance(engine, VllmEngine)
            watch = asyncio.create_task(engine.watch())
            yield engine
            watch.cancel()


def test_figures_are_read_while_the_engine_is_watched(fake: Fake) -> None:
    async def body() -> None:
        async with VllmBackend().open(fake.spec(figures=0.01)) as engine:
            assert isinstance(engine, VllmEngine)
            watch = asyncio.create_task(engine.watch())
            await eventually(lambda: engine.figures)
            watch.cancel()
            assert engine.figures["running"] == 3.0
            assert engine.figures["preemptions"] == 2.0

    run(body())


def test_preemptions_are_told_once(fake: Fake, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", logger="sage")

    async def body() -> None:
        async with adopted(fake) as engine:
            looks: set[float] = set()
            while len(looks) < 5:
                looks |= {engine.figures.get("at", 0.0)}
                await asyncio.sleep(0.01)

    run(body())
    assert [getattr(record, "action", "") for record in caplog.records].count("vllm_preempts") == 1


def test_an_adopted_server_says_what_it_holds(fake: Fake) -> None:
    async def body() -> None:
        async with adopted(fake) as engine:
            assert isinstance(engine, Shared)
            # A quarter of 46,592 tokens.
            assert await anext(engine.occupancies()) == Occupancy(requests=4, kv_tokens=11_648)
            # Its cache makes credits, as that of a server of SAGE's own.
            assert engine.capacity.kv_tokens == 46_592 - 32 * 127

    run(body())


def test_answers_that_one_request_asks_for_are_ours(fake: Fake) -> None:
    async def body() -> None:
        async with adopted(fake) as engine:
            told = engine.occupancies()
            assert (await anext(told)).requests == 4
            stream = engine.forward(
                Request(
                    id="1",
                    kind="generate",
                    model="chat",
                    path="/v1/chat/completions",
                    body=b'{"model": "chat", "n": 4, "max_tokens": 1000, "stream": true}',
                )
            )
            await anext(stream)
            # Four running or waiting, of which three are the further answers.
            assert (await anext(told)).requests == 1
            await stream.aclose()
            # They were ours since the last look, and then are not there any more.
            assert [(await anext(told)).requests, (await anext(told)).requests] == [1, 4]

    run(body())


@pytest.mark.parametrize("options", [{"kinds": ["embed"]}, {"figures": 0}])
def test_nothing_is_told_of_an_engine_of_texts_or_one_that_is_not_looked_at(
    fake: Fake, options: dict[str, Any]
) -> None:
    async def body() -> None:
        async with adopted(fake, **options) as engine:
            with pytest.raises((StopAsyncIteration, TimeoutError)):
                await asyncio.wait_for(anext(engine.occupancies()), 0.1)

    run(body())


def test_nothing_is_told_of_a_server_whose_key_nobody_else_has(fake: Fake) -> None:
    async def body() -> None:
        async with VllmBackend().open(fake.spec(figures=0.01)) as engine:
            assert isinstance(engine, VllmEngine)
            assert [told async for told in engine.occupancies()] == []

    run(body())


def test_a_server_that_shows_its_figures_to_nobody_is_adopted_all_the_same(fake: Fake) -> None:
    async def body() -> None:
        async with VllmBackend().open(fake.spec(environment={"FAKE_VLLM": "discreet"})):
            spec = ModelSpec(name="chat", backend="vllm", options=address(fake))
            async with VllmBackend().open(spec) as engine:
                assert engine.capacity.kv_tokens == 0

    run(body())


@pytest.mark.parametrize(
    ("request_", "count"),
    [
        (asks(), 1),
        (asks(n=3), 3),
        (asks(prompt="a text", n=None), 1),
        (asks(prompt=["a", "b"], n=2), 4),
        (asks(prompt=[1, 2, 3]), 1),
        (asks(prompt=[[1, 2], [3]]), 2),
        (asks(prompt=[]), 1),
        (asks(n=0), 1),
        (asks(n="many"), 1),
        (Request(id="1", kind="generate", model="chat", body=b'{"n": 2, \xff}'), 1),
        (Request(id="1", kind="generate", model="chat"), 1),
    ],
)
def test_answers_are_counted_as_vllm_counts_them(request_: Request, count: int) -> None:
    assert copies(request_) == count


def test_figures_are_beside_the_version_of_the_interface() -> None:
    for url in ("http://h:1/v1", "http://h:1/v1/", "http://h:1"):
        assert metrics_of(url) == "http://h:1/metrics"


def test_what_a_server_can_hold_becomes_credits_and_texts_are_cut() -> None:
    options = Options(kinds=("embed",), chunk=512, context=256, extra={"user": "me"})
    capacity = capacity_of(options, 4, Limits(kv_tokens=1_000, block=16))
    assert (capacity.sequences, capacity.prefill_tokens, capacity.kv_tokens) == (4, 1_024, 1_000 - 4 * 15)
    said = server_options(ModelSpec(name="m", backend="vllm"), options, "http://h:1/v1", "key", capacity)
    assert said.extra == {"truncate_prompt_tokens": -1, "user": "me"}
    assert (said.model, said.api_key, said.context) == ("m", "key", 256)
