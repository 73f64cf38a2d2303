"""Engines: opened and closed by tasks of their own, of a backend made once, with their model's secrets in place."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing, asynccontextmanager
from typing import Any, ClassVar

import pytest

from sage_core.common.errors import BadValue, ModelError, PluginError, RequestRejected
from sage_core.common.records import EngineInfo, ModelSpec, Occupancy, Request
from sage_core.common.registry import Registry
from sage_core.kernel.control_plane.driver import Driver
from sage_core.kernel.control_plane.engines import EnginePools, make_backend, revealed
from sage_core.kernel.control_plane.events import lane_of
from sage_core.kernel.control_plane.manager import ControlPlaneManager
from sage_core.testing.clock import LoopClock, run_skipping
from sage_core.testing.engines import FakeBackend, FakeEngine, FakeOptions


class CountedBackend(FakeBackend):
    """Counts how often it is made."""

    made = 0

    def __init__(self) -> None:
        super().__init__()
        type(self).made += 1


class ClumsyBackend(FakeBackend):
    @asynccontextmanager
    async def open(self, model: ModelSpec) -> AsyncIterator[FakeEngine]:
        yield FakeEngine(model.name, FakeOptions())
        raise OSError("cannot free the memory")


class ShrinkingEngine(FakeEngine):
    """Each batch has one number less a vector than the one before."""

    async def embed(self, texts: Sequence[str]) -> Any:
        return (await super().embed(texts))[:, len(self.batches) :]


class ShrinkingBackend(FakeBackend):
    @asynccontextmanager
    async def open(self, model: ModelSpec) -> AsyncIterator[FakeEngine]:
        yield ShrinkingEngine(model.name, FakeOptions())


class WatchedEngine(FakeEngine):
    """Says when its server is gone: by an error, or by returning."""

    gone: ClassVar[list[asyncio.Event]] = []
    said: ClassVar[Exception | None] = None

    async def watch(self) -> None:
        gone = asyncio.Event()
        self.gone.append(gone)
        await gone.wait()
        if self.said is not None:
            raise self.said


class WatchedBackend(FakeBackend):
    @asynccontextmanager
    async def open(self, model: ModelSpec) -> AsyncIterator[FakeEngine]:
        yield WatchedEngine(model.name, FakeOptions(ttft=60.0))


#: Offered as a backend, and none.
NO_BACKEND = object()


def registry(name: str) -> Registry:
    backends = Registry("backend")
    backends.add("test", {name: f"{__name__}:{name}"})
    return backends


def opened(name: str, *models: str) -> list[EngineInfo | Occupancy | Exception]:
    """Open one engine for each model, then close them all, and return what was reported."""

    async def main() -> list[EngineInfo | Occupancy | Exception]:
        reports: asyncio.Queue[EngineInfo | Occupancy | Exception] = asyncio.Queue()
        async with asyncio.TaskGroup() as tasks:
            pools = EnginePools(registry(name), tasks, lambda engine, what: reports.put_nowait(what))
            for model in models:
                pools.register(model, ModelSpec(name=model, backend=name))
                pools.start(f"{model}#1", model)
            found = [await reports.get() for _ in models]
            pools.close()
        assert reports.empty()
        assert all(pools.info(model) is None for model in models)
        return found

    return asyncio.run(main())


def test_a_backend_is_made_once_for_models_that_open_at_the_same_time() -> None:
    CountedBackend.made = 0
    infos = opened("CountedBackend", "a", "b", "c")
    assert sorted(info.id for info in infos if isinstance(info, EngineInfo)) == ["a#1", "b#1", "c#1"]
    assert CountedBackend.made == 1


def test_an_engine_that_cannot_be_closed_is_logged_and_concerns_no_request(caplog: pytest.LogCaptureFixture) -> None:
    (info,) = opened("ClumsyBackend", "a")
    assert isinstance(info, EngineInfo)
    (record,) = caplog.records
    assert record.getMessage() == "engine_not_closed engine=a#1 error=OSError: cannot free the memory"


def test_what_is_no_backend_is_its_plugins_error() -> None:
    with pytest.raises(PluginError, match="backend 'NO_BACKEND' has no identify and open"):
        make_backend(registry("NO_BACKEND"), "NO_BACKEND")


def test_a_secret_is_put_in_place_wherever_it_is_named() -> None:
    spec = ModelSpec(
        name="m", backend="b", source="http://host/${secret.PATH_KEY}", options={"keys": ["${secret.API_KEY}"], "n": 3}
    )

    made = revealed(spec, {"API_KEY": "k-1", "PATH_KEY": "p-2"})

    assert made == ModelSpec(name="m", backend="b", source="http://host/p-2", options={"keys": ["k-1"], "n": 3})


def test_a_secret_that_is_not_set_names_its_variable() -> None:
    spec = ModelSpec(name="m", backend="b", options={"key": "${secret.API_KEY}"})

    with pytest.raises(BadValue, match="API_KEY"):
        revealed(spec, {})


def test_vectors_of_another_dimension_than_the_engines_are_an_error_of_the_model() -> None:
    manager = ControlPlaneManager()
    request = Request(id="r", kind="embed", model="m", texts=("a",))

    async def main() -> None:
        async with Driver(manager, registry("ShrinkingBackend")) as driver:
            with pytest.raises(ModelError, match=r"its engine returned float32 \(1, 15\) and not float32 \(1, 16\)"):
                await driver.ask(request, ModelSpec(name="m", backend="ShrinkingBackend"))

    asyncio.run(main())
    assert manager.held == 0


@pytest.mark.parametrize(
    ("said", "reported"),
    [
        (None, "model 'm': its engine is gone\n  help: the next request opens another one"),
        (OSError("no route"), "model 'm': backend 'WatchedBackend' lost its engine: OSError: no route"),
    ],
)
def test_an_engine_that_watches_itself_is_lost_with_its_requests_when_it_says_so(
    said: Exception | None, reported: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(WatchedEngine, "said", said)
    monkeypatch.setattr(WatchedEngine, "gone", [])
    manager = ControlPlaneManager()
    spec = ModelSpec(name="m", backend="WatchedBackend")
    request = Request(id="r", kind="generate", model="m", messages=({"role": "user", "content": "a"},))

    async def main() -> None:
        async with Driver(manager, registry("WatchedBackend"), clock=LoopClock()) as driver:

            async def ask() -> None:
                async with aclosing(driver.generate(request, spec)) as stream:
                    async for _ in stream:
                        pass

            asking = asyncio.create_task(ask())
            # Whatever was asked of the engine is asked of another one, once; it may be what both died of.
            for number in range(2):
                await asyncio.sleep(5)
                WatchedEngine.gone[number].set()
            with pytest.raises(ModelError) as caught:
                await asking
            assert str(caught.value) == reported
            assert driver.pools.info(lane_of(spec)) is None

    run_skipping(main())
    assert manager.held == 0
    assert len(WatchedEngine.gone) == 2


def test_an_engine_that_is_closed_is_watched_no_longer() -> None:
    WatchedEngine.gone.clear()
    (info,) = opened("WatchedBackend", "a")
    assert isinstance(info, EngineInfo)
    assert len(WatchedEngine.gone) == 1


def test_an_engine_that_is_still_being_opened_is_not_waited_for() -> None:
    async def use() -> float:
        began = asyncio.get_running_loop().time()
        backends = Registry("backend")
        backends.add("test", {"slow": "sage_core.testing.engines:FakeBackend"})
        slow = ModelSpec(name="m", backend="slow", options={"open_seconds": 3_600.0})
        async with Driver(ControlPlaneManager(), backends, clock=LoopClock()) as driver:
            asked = asyncio.ensure_future(driver.ask(Request(id="r", kind="embed", model="m", texts=("a",)), slow))
            await asyncio.sleep(1.0)
        with pytest.raises(RequestRejected, match="the control plane is closing"):
            await asked
        return asyncio.get_running_loop().time() - began

    assert run_skipping(use()) < 3_600.0
