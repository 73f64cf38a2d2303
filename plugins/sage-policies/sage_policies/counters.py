"""What each tenant of a lane was served, and who of those who wait was served least."""

from __future__ import annotations

import heapq

from sage_core import WorkHeap

#: Counters kept for tenants who have nothing queued, beside as many again as have.
REMEMBERED = 1_024


class Counters:
    """Tenants with queued works, each in order of arrival, and a lazy heap of them by counter."""

    __slots__ = ("counters", "heap", "last", "queues")

    def __init__(self) -> None:
        self.counters: dict[str, float] = {}
        self.queues: dict[str, WorkHeap] = {}
        self.heap: list[tuple[float, str]] = []
        #: The tenant whose last work left last.
        self.last = ""

    def stands(self, entry: tuple[float, str]) -> bool:
        """Whether a tenant has works, and this counter."""
        return entry[1] in self.queues and self.counters[entry[1]] == entry[0]

    def least(self) -> float | None:
        """The smallest counter of a tenant with works."""
        while self.heap and not self.stands(self.heap[0]):
            heapq.heappop(self.heap)
        return self.heap[0][0] if self.heap else None

    def returns(self, tenant: str) -> WorkHeap:
        """Begin a tenant's queue, and lift it to the least of those who wait, or where nobody does, to who left last.

        So idle time is not saved up, by whom it may be.
        """
        least = self.least()
        level = self.counters.get(self.last, 0.0) if least is None else least
        self.counters[tenant] = max(self.counters.get(tenant, 0.0), level)
        queue = self.queues[tenant] = WorkHeap()
        self.enter(tenant)
        return queue

    def leaves(self, tenant: str) -> None:
        """End a tenant's queue, and forget some of many who have none."""
        del self.queues[tenant]
        self.last = tenant
        if len(self.counters) > 2 * len(self.queues) + REMEMBERED:
            # Those served most are kept: the others would mostly be lifted anyway.
            gone = [name for name in self.counters if name not in self.queues and name != tenant]
            gone.sort(key=lambda name: self.counters[name])
            for name in gone[: -REMEMBERED // 2]:
                del self.counters[name]

    def charge(self, tenant: str, tokens: float) -> None:
        """Move a tenant's counter; its entry of before is dead."""
        self.counters[tenant] = max(0.0, self.counters.get(tenant, 0.0) + tokens)
        if tenant in self.queues:
            self.enter(tenant)

    def enter(self, tenant: str) -> None:
        """Put a tenant into the heap, which is cleared of the dead when they are the most."""
        heapq.heappush(self.heap, (self.counters[tenant], tenant))
        if len(self.heap) > 4 * len(self.queues) + 64:
            self.heap = [(self.counters[name], name) for name in self.queues]
            heapq.heapify(self.heap)
