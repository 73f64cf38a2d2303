"""A queue ordered by rank from which any work can leave at any time: what policies keep their works in."""

from __future__ import annotations

import heapq

from sage_core.common.records import Work

#: rank, arrival, sequence, work: the sequence is unique, so works are never compared.
Ranked = tuple[float, int, int, Work]


class WorkHeap:
    """Smallest rank first, ties by arrival and then by order of entry.

    A work that leaves from the middle stays in the heap, dead, until it surfaces or more than half of the heap is dead.
    """

    __slots__ = ("_heap", "_live", "_sequence")

    def __init__(self) -> None:
        self._heap: list[Ranked] = []
        self._live: dict[str, Ranked] = {}
        self._sequence = 0

    def __len__(self) -> int:
        return len(self._live)

    def __contains__(self, work_id: object) -> bool:
        return work_id in self._live

    @property
    def size(self) -> int:
        """Entries held, dead ones included."""
        return len(self._heap)

    def push(self, work: Work, rank: float) -> None:
        """Take a work in; one with the id of another takes its place."""
        before = self._live.get(work.id)
        first = before is not None and bool(self._heap) and self._heap[0] is before
        if before is not None and not first:
            self.discard(work.id)
        self._sequence += 1
        entry = self._live[work.id] = (rank, work.arrival, self._sequence, work)
        if first:
            # What has to go behind others mostly stands at the head: one step in the place of two.
            heapq.heapreplace(self._heap, entry)
        else:
            heapq.heappush(self._heap, entry)

    def discard(self, work_id: str) -> Work | None:
        """Let a work go, wherever it stands; None for one that is not here."""
        found = self._live.pop(work_id, None)
        if found is None:
            return None
        if len(self._heap) > 2 * len(self._live) + 16:
            self._heap = [entry for entry in self._heap if self._live.get(entry[3].id) is entry]
            heapq.heapify(self._heap)
        return found[3]

    def head(self) -> Ranked | None:
        """The first entry, which stays."""
        while self._heap:
            entry = self._heap[0]
            if self._live.get(entry[3].id) is entry:
                return entry
            heapq.heappop(self._heap)
        return None

    def pop(self) -> Ranked:
        """Take the first entry out, which `put_back` may return; it counts as gone only after `discard`.

        Only after `head` has shown that there is one that lives.
        """
        return heapq.heappop(self._heap)

    def put_back(self, entry: Ranked) -> None:
        """Return what `pop` took out."""
        heapq.heappush(self._heap, entry)
