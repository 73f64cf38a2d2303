"""A driver over a fake engine, with what it decided and recorded."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any

import sage_core.testing.engines as fake
from sage_core.common.host import Host
from sage_core.common.records import ModelSpec, Request
from sage_core.kernel.control_plane.driver import Driver
from sage_core.kernel.control_plane.events import Decided, Instant, lane_of
from sage_core.kernel.control_plane.manager import ControlPlaneManager
from sage_core.testing.engines import FakeEngine


class Bench:
    """A driver, its recording, its decisions and its one engine's model."""

    def __init__(self, **options: Any) -> None:
        self.spec = ModelSpec(name="m", backend="fake", options=options)
        self.instants: list[Instant] = []
        self.decided: list[Decided] = []
        self.manager = ControlPlaneManager()
        self.numbers = iter(range(10_000))

    @asynccontextmanager
    async def open(self) -> AsyncGenerator[Driver]:
        async with Driver(
            self.manager,
            Host({"fake": fake}).backends,
            sink=lambda lines: self.decided.extend(line for _, line in lines),
            record=self.instants.append,
        ) as driver:
            yield driver

    def engine(self, driver: Driver) -> FakeEngine:
        info = driver.pools.info(lane_of(self.spec))
        assert info is not None
        found = driver.pools.engine(info.id)
        assert isinstance(found, FakeEngine)
        return found

    def request(self, kind: Any = "embed", *texts: str, **fields: Any) -> Request:
        return Request(id=f"r{next(self.numbers)}", kind=kind, model="m", texts=texts, **fields)


def run(bench: Bench, use: Callable[[Driver], Coroutine[Any, Any, None]]) -> None:
    async def main() -> None:
        async with bench.open() as driver:
            await use(driver)

    asyncio.run(main())
