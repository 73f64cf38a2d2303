"""A clock that stands still until a test turns it."""

from __future__ import annotations

from sage_core.common.clock import SECOND


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
