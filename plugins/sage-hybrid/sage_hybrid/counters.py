"""What each tenant was served, in engine-seconds."""

from __future__ import annotations

from collections.abc import Container

#: Counters kept for tenants who have nothing queued, beside as many again as have.
REMEMBERED = 1_024


class Counters:
    """Virtual counters by tenant: charged, given back, and lifted when a tenant returns.

    Source: "Fairness in Serving Large Language Models" (OSDI 2024, arXiv 2401.00588), also for the lift.
    """

    __slots__ = ("_last", "_seconds")

    def __init__(self) -> None:
        self._seconds: dict[str, float] = {}
        #: The tenant whose last work left last.
        self._last = ""

    def __len__(self) -> int:
        return len(self._seconds)

    def of(self, tenant: str) -> float:
        """What it was served."""
        return self._seconds.get(tenant, 0.0)

    def charge(self, tenant: str, seconds: float) -> None:
        """Count more, or less."""
        self._seconds[tenant] = max(0.0, self.of(tenant) + seconds)

    def returns(self, tenant: str, least: str | None) -> None:
        """Lift a tenant who had nothing queued to the least of those who wait, or where nobody does, to who left last.

        So idle time is not saved up, by whom it may be.
        """
        level = self.of(self._last if least is None else least)
        if level > self.of(tenant):
            self._seconds[tenant] = level

    def leaves(self, tenant: str, waiting: Container[str], count: int) -> None:
        """Note a tenant who has nothing queued any more, and forget some of many such."""
        self._last = tenant
        if len(self._seconds) > 2 * count + REMEMBERED:
            # Those served most are kept: the others would mostly be lifted anyway.
            gone = sorted((name for name in self._seconds if name not in waiting and name != tenant), key=self.of)
            for name in gone[: -REMEMBERED // 2]:
                del self._seconds[name]
