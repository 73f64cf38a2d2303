"""How fast an engine's streams go, told now and then and not for every token."""

from __future__ import annotations

from sage_core.common.clock import MILLISECOND, SECOND

#: Time between two reports (ns).
EVERY = 100 * MILLISECOND


class Pace:
    """The mean time between the output tokens of one engine's streams since the last report."""

    __slots__ = ("_since", "_spent", "_tokens")

    def __init__(self, now: int) -> None:
        self._since = now
        self._spent = self._tokens = 0

    def add(self, gap: int, tokens: int, now: int) -> float | None:
        """Take in that `tokens` came `gap` ns after the last ones of their stream; the mean (s) when it is due."""
        self._spent += gap
        self._tokens += tokens
        if now - self._since < EVERY:
            return None
        mean = self._spent / self._tokens / SECOND
        self._since, self._spent, self._tokens = now, 0, 0
        return mean
