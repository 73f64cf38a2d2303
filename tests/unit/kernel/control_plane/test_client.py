"""`UnifiedInferenceClient` inline: callers, unknown names, the decision log and its observers."""

from __future__ import annotations

import asyncio
import json
import types
from collections.abc import AsyncIterator, Mapping
from pathlib import Path

import pytest

import sage_core.testing.engines as fake
from sage_core import builtins
from sage_core.common.config import Config, SchedulerConfig
from sage_core.common.contracts import InferenceClient
from sage_core.common.errors import ModelError, UnknownName, UsageError
from sage_core.common.hookspecs import hookimpl
from sage_core.common.host import Host
from sage_core.common.paths import Paths
from sage_core.common.records import Caller, ModelSpec, Request, Token
from sage_core.kernel.control_plane.client import UnifiedInferenceClient

MODELS = {name: ModelSpec(name=name, backend="fake", source="one") for name in ("m", "same")}


def paths(folder: Path) -> Paths:
    return Paths(project=folder / "project", data=folder / "data", runtime=folder / "run")


def client(folder: Path, host: Host | None = None, config: Config | None = None) -> UnifiedInferenceClient:
    host = host or Host({"fake": fake}, builtins=builtins)
    caller = Caller(worker="w1", run="r1")
    return UnifiedInferenceClient.create(
        MODELS, paths=paths(folder), caller=caller, host=host, config=config, inline=True
    )


def test_a_bound_view_sends_its_step_and_shares_the_engine(tmp_path: Path) -> None:
    async def use() -> None:
        async with client(tmp_path) as opened:
            bound: InferenceClient = opened.bound(step="embed", tenant="t")
            assert (await bound.embed("m", ["a"])).shape == (1, 16)
            other = opened.bound(Caller(run="r2"), step="ask")
            assert other.caller == Caller(run="r2", step="ask")
            await other.embed("m", ["b"])

    asyncio.run(use())
    lines = [json.loads(line) for line in (paths(tmp_path).logs / "decisions.jsonl").read_text().splitlines()]
    assert [(line["run"], line["step"], line["tenant"], line["worker"]) for line in lines] == [
        ("r1", "embed", "t", "w1"),
        ("r2", "ask", "local", ""),
    ]
    assert {line["engine"] for line in lines} == {lines[0]["engine"]}
    assert lines[0].keys() >= {"request", "kind", "model", "rows", "tokens", "wait", "batch", "predicted", "actual"}


def test_two_names_of_one_model_share_its_engine(tmp_path: Path) -> None:
    async def use() -> None:
        async with client(tmp_path) as opened:
            first, second = await opened.info("m"), await opened.info("same")
            assert first.id == second.id
            assert (first.model, second.model) == ("m", "same")

    asyncio.run(use())


def test_an_unknown_model_lists_the_known_and_says_how_to_add_it(tmp_path: Path) -> None:
    async def use() -> str:
        async with client(tmp_path) as opened:
            with pytest.raises(ModelError) as caught:
                await opened.embed("sane", ["x"])
            with pytest.raises(ModelError):
                opened.generate("sane", [])
            return str(caught.value)

    assert asyncio.run(use()) == (
        "model 'sane': no model has this name. Did you mean 'same'? Known: m, same.\n"
        '  help: add [models.sane] with backend = "…" to the workflow or sage.toml, or: sage models add sane'
    )


def test_a_client_that_is_not_open_says_so(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="use it inside: async with client"):
        asyncio.run(client(tmp_path).embed("m", ["x"]))


def test_an_unknown_scheduler_is_an_error_and_no_silent_default(tmp_path: Path) -> None:
    async def use() -> None:
        async with client(tmp_path, config=Config(scheduler=SchedulerConfig(requests="fido"))):
            pass

    with pytest.raises(UnknownName, match=r"No scheduler is named 'fido'\. Did you mean 'fifo'\?"):
        asyncio.run(use())


def test_plugins_observe_decisions(tmp_path: Path) -> None:
    seen: list[tuple[str, object]] = []
    watcher = types.ModuleType("watcher")

    @hookimpl
    def sage_on_request_decided(request: Request, decision: Mapping[str, object]) -> None:
        seen.append((request.id, decision["request"]))

    watcher.sage_on_request_decided = sage_on_request_decided  # type: ignore[attr-defined]

    async def use() -> None:
        async with client(tmp_path, Host({"fake": fake, "watcher": watcher})) as opened:
            await opened.embed("m", ["a"])
            await opened.tokenize("m", ["a"])

    asyncio.run(use())
    assert len(seen) == 2
    assert all(request == decided for request, decided in seen)


def test_a_conversation_and_a_text_to_continue_are_streamed(tmp_path: Path) -> None:
    async def use() -> None:
        async with client(tmp_path) as opened:
            chat = [token async for token in opened.chat("m", [{"role": "user", "content": "a b"}])]
            assert [token.text for token in chat] == ["a", " b", ""]
            continued = [token async for token in opened.completion("m", "once upon", max_tokens=1)]
            assert (continued[0].text, continued[-1].finish) == ("once", "length")

    asyncio.run(use())


def test_what_is_left_until_a_deadline_is_sent_with_each_request() -> None:
    sent: list[Request] = []

    class Kept:
        async def ask(self, request: Request, spec: ModelSpec, *, about: bool = False) -> list[float]:
            sent.append(request)
            return [1.0]

        def generate(self, request: Request, spec: ModelSpec) -> AsyncIterator[Token]:
            raise NotImplementedError

    async def use() -> None:
        opened = client(Path("unused"))
        opened._shared.transport = Kept()
        bound = opened.bound(deadline=100.0, ttft=0.5)
        for view in (bound, bound.bound(step="s"), opened, opened.bound(deadline=-5.0)):
            await view.rerank("m", "a", ["b"])

    asyncio.run(use())
    first, second, free, late = (request.caller for request in sent)
    assert first.remaining is not None
    assert second.remaining is not None
    assert 0 < second.remaining < first.remaining <= 100_000_000_000
    assert (first.ttft, second.ttft, second.step) == (500_000_000, 500_000_000, "s")
    assert (free.remaining, late.remaining) == (None, 1_000_000)
