"""The works of one class, by tenant: who has been served least goes first, and within a step of that, by rank."""

from __future__ import annotations

import heapq

from sage_core import Ranked, Work, WorkHeap

#: Counters kept for tenants who have nothing queued, beside as many again as have.
REMEMBERED = 1_024

#: Counter in quanta, rank, arrival, tenant.
_Stand = tuple[int, float, int, str]
#: A tenant and an entry of its queue.
Skipped = tuple[str, Ranked]


class Tenants:
    """A virtual token counter in engine-seconds, quantised: tenants within one quantum are equals, ordered by deadline.

    Exact counters would put fairness before every deadline; the quantum says how much unfairness a deadline is worth.
    A lazy heap of tenants keeps the head cheap however many there are.

    Source: "Fairness in Serving Large Language Models" (OSDI 2024, arXiv 2401.00588).

    Args:
        quantum: engine-seconds; None takes all tenants for one.
    """

    def __init__(self, quantum: float | None) -> None:
        self._quantum = quantum
        self._queues: dict[str, WorkHeap] = {}
        self._counters: dict[str, float] = {}
        self._stands: dict[str, _Stand] = {}
        self._heap: list[_Stand] = []
        self._count = 0
        #: Engine-seconds of everything in it.
        self.cost = 0.0

    def __len__(self) -> int:
        return self._count

    @property
    def size(self) -> int:
        """Entries held in all heaps, dead ones included."""
        return len(self._heap) + sum(queue.size for queue in self._queues.values())

    def push(self, work: Work, rank: float) -> None:
        """Take a work in; a tenant without others is lifted to those who wait, so that idle time is not saved up."""
        self.discard(work)
        name = self._name(work)
        queue = self._queues.get(name)
        if queue is None:
            least = self._least()
            queue = self._queues[name] = WorkHeap()
            if least is not None:
                self._counters[name] = max(self._counters.get(name, 0.0), self._counters.get(least[3], 0.0))
        queue.push(work, rank)
        self._count += 1
        self.cost += work.cost
        self._refresh(name, queue)

    def move(self, work: Work, rank: float) -> None:
        """Give a work that is here another rank."""
        name = self._name(work)
        self._queues[name].push(work, rank)
        self._refresh(name, self._queues[name])

    def head(self) -> Work | None:
        """The work to serve first."""
        least = self._least()
        entry = self._queues[least[3]].head() if least is not None else None
        return entry[3] if entry is not None else None

    def skip(self) -> Skipped:
        """Look past the head, until `restore`; cheaper than to take it out and in again."""
        stand = heapq.heappop(self._heap)
        queue = self._queues[stand[3]]
        entry = queue.pop()
        after = queue.head()
        if after is not None:
            stand = self._stands[stand[3]] = (stand[0], after[0], after[1], stand[3])
            heapq.heappush(self._heap, stand)
        else:
            del self._stands[stand[3]]
        return stand[3], entry

    def restore(self, skipped: list[Skipped]) -> None:
        """Return what was skipped, before anything else is done with it."""
        for name, entry in skipped:
            self._queues[name].put_back(entry)
        for name in dict(skipped):
            self._refresh(name, self._queues[name])

    def discard(self, work: Work) -> bool:
        """Let a work go; false for one that is not here."""
        name = self._name(work)
        queue = self._queues.get(name)
        known = queue.discard(work.id) if queue is not None else None
        if queue is None or known is None:
            return False
        self._count -= 1
        self.cost = self.cost - known.cost if self._count else 0.0
        self._refresh(name, queue)
        return True

    def charge(self, work: Work, seconds: float) -> None:
        """Move a tenant's counter; below 0 gives back."""
        if self._quantum is not None:
            name = self._name(work)
            self._counters[name] = max(0.0, self._counters.get(name, 0.0) + seconds)
            queue = self._queues.get(name)
            if queue is not None:
                self._refresh(name, queue)

    def _name(self, work: Work) -> str:
        return "" if self._quantum is None else work.tenant

    def _least(self) -> _Stand | None:
        while self._heap:
            stand = self._heap[0]
            if self._stands.get(stand[3]) is stand:
                return stand
            heapq.heappop(self._heap)
        return None

    def _refresh(self, name: str, queue: WorkHeap) -> None:
        head = queue.head()
        if head is None:
            del self._queues[name]
            self._stands.pop(name, None)
            self._forget()
            return
        served = int(self._counters.get(name, 0.0) / self._quantum) if self._quantum else 0
        stand = (served, head[0], head[1], name)
        if self._stands.get(name) != stand:
            self._stands[name] = stand
            heapq.heappush(self._heap, stand)
            if len(self._heap) > 4 * len(self._queues) + 64:
                self._heap = list(self._stands.values())
                heapq.heapify(self._heap)

    def _forget(self) -> None:
        if len(self._counters) > 2 * len(self._queues) + REMEMBERED:
            # Of those who are not there, the ones served most: the others would mostly be lifted anyway.
            gone = [name for name in self._counters if name not in self._queues]
            gone.sort(key=lambda name: self._counters[name])
            for name in gone[: -REMEMBERED // 2]:
                del self._counters[name]
