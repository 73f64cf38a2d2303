"""A driver over fake engines in virtual time, for tests of what happens to many requests."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Coroutine
from contextlib import aclosing, asynccontextmanager
from typing import Any, ClassVar

from sage_core.common.records import Capacity, Chunk, ModelSpec, Request
from sage_core.common.registry import Registry
from sage_core.kernel.control_plane.driver import Driver
from sage_core.kernel.control_plane.events import Decided, Instant
from sage_core.kernel.control_plane.manager import ControlPlaneManager
from sage_core.testing.clock import LoopClock, run_skipping
from sage_core.testing.engines import FakeBackend, FakeEngine, FakeOptions


class Kept(FakeBackend):
    """Remembers its engines, so that tests can look at those that are closed."""

    engines: ClassVar[list[FakeEngine]] = []
    kind: ClassVar[type[FakeEngine]] = FakeEngine

    @asynccontextmanager
    async def open(self, model: ModelSpec) -> AsyncIterator[FakeEngine]:
        async with super().open(model) as engine:
            made = self.kind(engine.model, engine.options)
            made._killed = engine._killed
            self.engines.append(made)
            yield made


class SilentEngine(FakeEngine):
    """Ends its answers before they begin."""

    async def forward(self, request: Request) -> AsyncIterator[Chunk]:
        nothing: tuple[Chunk, ...] = ()
        for chunk in nothing:
            yield chunk


class Silent(Kept):
    kind = SilentEngine


class BrittleEngine(FakeEngine):
    """Breaks when it has to stop."""

    async def forward(self, request: Request) -> AsyncIterator[Chunk]:
        try:
            async for chunk in super().forward(request):
                yield chunk
        except (asyncio.CancelledError, GeneratorExit):
            raise RuntimeError("cannot stop") from None


class Brittle(Kept):
    kind = BrittleEngine


class DyingEngine(FakeEngine):
    """Is lost in the very instant of its first chunk."""

    die: ClassVar[Callable[[], None]]

    async def forward(self, request: Request) -> AsyncIterator[Chunk]:
        async for chunk in super().forward(request):
            type(self).die()
            yield chunk


class Dying(Kept):
    kind = DyingEngine


class ProxyEngine:
    """Forwards, and nothing else."""

    kinds = ("generate",)
    capacity = Capacity()
    dimension = 0

    async def forward(self, request: Request) -> AsyncIterator[Chunk]:
        yield Chunk(data=b"{}")


class Proxy:
    def identify(self, model: ModelSpec) -> str:
        return "proxy"

    @asynccontextmanager
    async def open(self, model: ModelSpec) -> AsyncIterator[ProxyEngine]:
        yield ProxyEngine()


class Field:
    """A driver in virtual time, the engines it opened, and its decisions."""

    def __init__(self, *engines: dict[str, Any], backend: str = "Kept", **options: Any) -> None:
        members = {"engines": [*engines]} if engines else {}
        self.spec = ModelSpec(name="m", backend=backend, options={**options, **members})
        self.decided: list[Decided] = []
        self.instants: list[Instant] = []
        self.manager = ControlPlaneManager()
        self._numbers = iter(range(1_000_000))
        self.opened = Kept.engines
        self.opened.clear()

    def chat(self, text: str, **fields: Any) -> Request:
        body = {"model": "m", "messages": [{"role": "user", "content": text}], **fields}
        return self.request("/v1/chat/completions", body)

    def request(self, path: str, body: dict[str, Any], kind: Any = "generate", **fields: Any) -> Request:
        number = f"r{next(self._numbers)}"
        return Request(id=number, kind=kind, model="m", path=path, body=json.dumps(body).encode(), **fields)

    def run(self, use: Callable[[Driver], Coroutine[Any, Any, None]]) -> None:
        async def main() -> None:
            backends = Registry("backend")
            backends.add(
                "test", {name: f"{__name__}:{name}" for name in ("Kept", "Silent", "Brittle", "Dying", "Proxy")}
            )
            decided = self.decided
            async with Driver(
                self.manager,
                backends,
                clock=LoopClock(),
                sink=lambda lines: decided.extend(line for _, line in lines),
                record=self.instants.append,
            ) as driver:
                self.driver = driver
                await use(driver)
                await asyncio.sleep(1)
                assert self.manager.held == 0
                assert [engine.running for engine in self.opened] == [0] * len(self.opened)

        run_skipping(main())


async def read(stream: AsyncGenerator[Any]) -> tuple[bytes, list[Chunk]]:
    async with aclosing(stream):
        chunks = [chunk async for chunk in stream]
    return b"".join(chunk.data for chunk in chunks), chunks


async def direct(request: Request, **options: Any) -> bytes:
    """What an engine answers to those who ask it themselves."""
    engine = FakeEngine("m", FakeOptions(**options))
    return b"".join([chunk.data async for chunk in engine.forward(request)])
