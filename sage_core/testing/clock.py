"""Clocks of tests: one that stands still until a test turns it, and an event loop in which waiting takes no time."""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from sage_core.common.clock import SECOND

T = TypeVar("T")


class FakeClock:
    """A `Clock` whose time moves by `advance` only."""

    def __init__(self, now: int = 0) -> None:
        self._now = now

    def now(self) -> int:
        return self._now

    def advance(self, seconds: float) -> int:
        """Move time forward and return it; a clock never runs backwards."""
        if seconds < 0:
            raise ValueError(f"a monotonic clock cannot go back by {-seconds} s")
        self._now += round(seconds * SECOND)
        return self._now


class SkippingLoop(asyncio.SelectorEventLoop):
    """An event loop whose time jumps to the next timer as soon as nothing else is left to do.

    It stands still while a thread of `asyncio.to_thread` works, so timers fire in the same order on any machine.
    """

    def __init__(self) -> None:
        self._skips = _Skips()
        super().__init__(self._skips)

    def time(self) -> float:
        return self._skips.now

    def run_in_executor(self, executor: Any, func: Callable[..., T], *args: Any) -> asyncio.Future[T]:  # type: ignore[override]
        self._skips.threads += 1
        future = super().run_in_executor(executor, func, *args)
        future.add_done_callback(self._returned)
        return future

    def _returned(self, future: asyncio.Future[Any]) -> None:
        self._skips.threads -= 1


class _Skips(selectors.DefaultSelector):
    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.threads = 0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if timeout is None or self.threads:
            return super().select(0 if timeout == 0 else None)
        self.now += timeout
        return super().select(0)


class LoopClock:
    """A `Clock` that shows the running event loop's time."""

    def now(self) -> int:
        return round(asyncio.get_running_loop().time() * SECOND)


def run_skipping(main: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine on a `SkippingLoop`."""
    with asyncio.Runner(loop_factory=SkippingLoop) as runner:
        return runner.run(main)
