"""The earliest deadline first, without spending engines on deadlines that cannot be met."""

from __future__ import annotations

import heapq

import msgspec

from sage_core import SECOND, Decision, Dispatch, Event, Fleet, Place, Verdict, Withdrawn, Work, WorkHeap
from sage_policies.lanes import LaneScheduler, Queue

#: Doomed works put back in one call, so that a call stays short.
PURGED_AT_ONCE = 16
#: Places that are asked whether they meet a deadline: the least loaded ones.
LOOKED_AT = 8


class SloAware(LaneScheduler):
    """Orders by deadline; a work that cannot meet its own any more goes to a late tier: behind all that can.

    A work in the late tier, or without a deadline, stands where one stands whose deadline is `aging` seconds after its
    arrival: it is overtaken only by works with earlier deadlines, which must have arrived before that.

    Good: several classes with different deadlines, and overload that passes: plain EDF then serves what is already
    lost, and makes everything else late too. Loses: with one class and one deadline it is FIFO; long works that need
    more than their deadline leaves are always late; it knows no tenants.

    Source: C. L. Liu and J. W. Layland, "Scheduling Algorithms for Multiprogramming in a Hard-Real-Time Environment"
    (1973) for the order; Niyama (arXiv 2503.22562) for the relegation of doomed requests.
    """

    def __init__(self, *, aging: float = 30.0) -> None:
        super().__init__(aging=aging)
        self._late: dict[str, None] = {}
        #: Works that may still be put back in this call.
        self._purge = 0

    def rank(self, work: Work) -> float:
        patient = work.arrival + self._aging
        if work.deadline is None:
            return float(patient)
        return float(max(work.deadline, patient) if work.id in self._late else work.deadline)

    def order(self, queue: Queue, lane: str, fleet: Fleet, now: int) -> WorkHeap:
        # Aging is part of the rank here.
        return queue.ranked

    def place(self, work: Work, places: list[Place], fleet: Fleet, now: int) -> Place | None:
        """Where it goes, unless it would be late there and has not been put back yet."""
        place = fleet.pick(work, places)
        if place is None or work.id in self._late or not self._purge or _meets(work, place, fleet, now):
            return place
        # The selector knows no deadlines: another engine may be quick enough.
        likeliest = heapq.nsmallest(LOOKED_AT, places, key=lambda each: (each.load, each.running))
        timely = [each for each in likeliest if _meets(work, each, fleet, now)]
        if timely:
            return fleet.pick(work, timely)
        self._relegate(work)
        return None

    def why(self, queue: Queue, heap: WorkHeap) -> str:
        return ""

    def submit(self, work: Work, fleet: Fleet, now: int) -> Verdict:
        """Queue the work; one that comes back from a lost engine is judged anew."""
        self._late.pop(work.id, None)
        return super().submit(work, fleet, now)

    def next(self, fleet: Fleet, now: int) -> Decision:
        """Dispatch the earliest deadline that can be met, or where none can, the oldest that is late."""
        self._purge = PURGED_AT_ONCE
        for queue in self._lanes.values():
            while self._purge and (head := queue.ranked.head()) is not None and self._lost(head[3], now):
                self._relegate(head[3])
        while True:
            before = self._purge
            decision = super().next(fleet, now)
            if isinstance(decision, Dispatch):
                late = self._late.pop(decision.work.id, 0) is None
                return msgspec.structs.replace(decision, why="late" if late else "deadline")
            # Those put back may be all there is: then they are what the engines are free for.
            if before == self._purge:
                return decision

    def observe(self, event: Event, now: int) -> None:
        """Drop a withdrawn work."""
        super().observe(event, now)
        if isinstance(event, Withdrawn):
            self._late.pop(event.work.id, None)

    def _lost(self, work: Work, now: int) -> bool:
        return work.deadline is not None and work.deadline <= now and work.id not in self._late

    def _relegate(self, work: Work) -> None:
        self._purge -= 1
        self._late[work.id] = None
        self._lanes[work.lane].ranked.push(work, self.rank(work))


def _meets(work: Work, place: Place, fleet: Fleet, now: int) -> bool:
    if work.deadline is None:
        return True
    seconds = fleet.ttft(work, place) if work.kind == "generate" else fleet.cost(work, place)
    return now + seconds * SECOND <= work.deadline
