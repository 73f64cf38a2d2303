"""How fast a class is served: engine-seconds dispatched each second."""

from __future__ import annotations

import math

from sage_core import SECOND

#: Time over which a rate is averaged (s).
AVERAGED = 30.0


class Rate:
    """Engine-seconds dispatched each second, the latest weighing most."""

    __slots__ = ("_at", "_since", "_sum")

    def __init__(self) -> None:
        self._sum, self._at, self._since = 0.0, 0, 0

    def begin(self, now: int) -> None:
        """Forget what was before."""
        self._sum, self._at, self._since = 0.0, now, now

    def add(self, cost: float, now: int) -> None:
        """Count a dispatch."""
        self._sum = self._faded(now) + cost
        self._at = now

    def per_second(self, now: int) -> float:
        """The rate; 0 before anything is known."""
        # Over the time there was, as far as it weighs.
        weighs = AVERAGED * -math.expm1((self._since - now) / SECOND / AVERAGED)
        return self._faded(now) / weighs if weighs > 0.0 else 0.0

    def _faded(self, now: int) -> float:
        return self._sum * math.exp((self._at - now) / SECOND / AVERAGED)
