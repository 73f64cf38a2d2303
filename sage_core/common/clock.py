"""Time as an argument: what decides takes `now`, what does I/O asks a `Clock`."""

from __future__ import annotations

import time
from typing import Protocol

#: Nanoseconds in one second and in one millisecond.
SECOND = 1_000_000_000
MILLISECOND = 1_000_000


class Clock(Protocol):
    """A source of time that tests can turn by hand."""

    def now(self) -> int:
        """Monotonic integer nanoseconds; comparable only within one process."""


class SystemClock:
    """The machine's monotonic clock."""

    def now(self) -> int:
        return time.monotonic_ns()
