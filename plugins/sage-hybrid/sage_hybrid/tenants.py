"""The works of one class, by tenant: who has been served least goes first, and within a step of that, by rank."""

from __future__ import annotations

import heapq

from sage_core import Ranked, Work, WorkHeap
from sage_hybrid.counters import Counters

#: Dead entries in a row that are taken off the heap before it is made anew.
CLEARED = 32

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
        self._counters = Counters()
        self._stands: dict[str, _Stand] = {}
        self._heap: list[_Stand] = []
        self._count = 0
        #: Engine-seconds of everything in it.
        self.cost = 0.0

    def __len__(self) -> int:
        return self._count

    def push(self, work: Work, rank: float) -> None:
        """Take a work in."""
        self.discard(work)
        name = self._name(work)
        queue = self._queues.get(name)
        if queue is None:
            least = self._least()
            queue = self._queues[name] = WorkHeap()
            self._counters.returns(name, None if least is None else least[3])
        queue.push(work, rank)
        self._count += 1
        self.cost += work.cost
        self._refresh(name, queue)

    def move(self, work: Work, rank: float) -> None:
        """Give a work that is here another rank."""
        queue = self._queues[name := self._name(work)]
        queue.push(work, rank)
        self._refresh(name, queue)

    def head(self) -> Work | None:
        """The work to serve first."""
        least = self._least()
        entry = None if least is None else self._queues[least[3]].head()
        return None if entry is None else entry[3]

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

    def serve(self, work: Work) -> None:
        """Let a work go and charge its tenant for it."""
        if self._quantum is not None:
            self._counters.charge(work.tenant, work.cost)
        self.discard(work)

    def charge(self, work: Work, seconds: float) -> None:
        """Move a tenant's counter; below 0 gives back."""
        if self._quantum is not None:
            self._counters.charge(work.tenant, seconds)
            if (queue := self._queues.get(work.tenant)) is not None:
                self._refresh(work.tenant, queue)

    def _name(self, work: Work) -> str:
        return "" if self._quantum is None else work.tenant

    def _least(self) -> _Stand | None:
        for _ in range(CLEARED):
            if not self._heap:
                return None
            stand = self._heap[0]
            if self._stands.get(stand[3]) is stand:
                return stand
            heapq.heappop(self._heap)
        # So many dead in a row: to begin afresh is quicker than to let them surface one by one.
        self._heap = list(self._stands.values())
        heapq.heapify(self._heap)
        return self._heap[0] if self._heap else None

    def _refresh(self, name: str, queue: WorkHeap) -> None:
        head = queue.head()
        if head is None:
            del self._queues[name]
            self._stands.pop(name, None)
            self._counters.leaves(name, self._queues, len(self._queues))
            return
        served = int(self._counters.of(name) / self._quantum) if self._quantum else 0
        stand = (served, head[0], head[1], name)
        before = self._stands.get(name)
        if before != stand:
            self._stands[name] = stand
            if self._heap and self._heap[0] is before:
                heapq.heapreplace(self._heap, stand)
                return
            heapq.heappush(self._heap, stand)
            if len(self._heap) > 4 * len(self._queues) + 64:
                self._heap = list(self._stands.values())
                heapq.heapify(self._heap)
