"""What the ordered policies share: two queues a lane, one by rank and one by arrival, and a bound on overtaking."""

from __future__ import annotations

from sage_core import (
    SECOND,
    Decision,
    Dispatch,
    Event,
    Fleet,
    Idle,
    Lane,
    Place,
    Queued,
    Ranked,
    Verdict,
    Withdrawn,
    Work,
    WorkHeap,
)

#: Heads that fit nowhere and are passed before a lane is given up for this instant; one that is no smaller than another
#: that fitted nowhere is passed without a look at the engines.
LOOK_AHEAD = 8


class Queue:
    """The works of one lane, by rank and by arrival."""

    __slots__ = ("arrived", "cost", "ranked")

    def __init__(self) -> None:
        self.ranked = WorkHeap()
        self.arrived = WorkHeap()
        #: Engine-seconds of everything in it.
        self.cost = 0.0


class LaneScheduler:
    """Orders each lane by `rank`; a work that has waited for `aging` seconds goes before all younger ones.

    So nothing waits longer than `aging` plus the time that the works which arrived before it take.
    """

    def __init__(self, *, aging: float = 30.0) -> None:
        self._aging = round(aging * SECOND)
        self._lanes: dict[Lane, Queue] = {}

    # ------------------------------------------------------------ what a policy says

    def rank(self, work: Work) -> float:
        """The work's place in its lane: smaller goes first."""
        return float(work.arrival)

    def order(self, queue: Queue, lane: Lane, fleet: Fleet, now: int) -> WorkHeap:
        """The queue to serve from at this moment."""
        oldest = queue.arrived.head()
        if oldest is not None and now - oldest[1] >= self._aging:
            return queue.arrived
        return queue.ranked

    def place(self, work: Work, places: list[Place], fleet: Fleet, now: int) -> Place | None:
        """Where it goes, of the places open to it; None leaves it where it is."""
        return fleet.pick(work, places)

    def why(self, queue: Queue, heap: WorkHeap) -> str:
        """What the decision log says of a dispatch from this heap."""
        return "aged" if heap is queue.arrived else ""

    # ------------------------------------------------------------ the contract

    def submit(self, work: Work, fleet: Fleet, now: int) -> Verdict:
        """Queue the work."""
        self._forget(work)
        queue = self._lanes.setdefault(work.lane, Queue())
        queue.ranked.push(work, self.rank(work))
        queue.arrived.push(work, float(work.arrival))
        queue.cost += work.cost
        return Queued()

    def next(self, fleet: Fleet, now: int) -> Decision:
        """Dispatch the first work that fits somewhere, the lane that waits longest first."""
        lanes = [
            (head[1], lane)
            for lane, queue in self._lanes.items()
            if (head := queue.arrived.head()) is not None and fleet.room(lane)
        ]
        lanes.sort()
        for _, lane in lanes:
            found = self._release(lane, fleet, now)
            if found is not None:
                return found
        return Idle()

    def observe(self, event: Event, now: int) -> None:
        """Drop a withdrawn work."""
        if isinstance(event, Withdrawn):
            self._forget(event.work)

    # ------------------------------------------------------------ inside

    def _release(self, lane: Lane, fleet: Fleet, now: int) -> Dispatch | None:
        queue = self._lanes[lane]
        heap = self.order(queue, lane, fleet, now)
        passed: list[Ranked] = []
        found = None
        least: Work | None = None
        while len(passed) < LOOK_AHEAD and heap.head() is not None:
            entry = heap.pop()
            work = entry[3]
            probed = least is None or smaller(work, least)
            places = list(fleet.open(work)) if probed else []
            place = self.place(work, places, fleet, now) if places else None
            if place is not None:
                found = Dispatch(work=work, place=place, why=self.why(queue, heap))
                break
            passed.append(entry)
            if probed and not places:
                least = work
        for entry in passed:
            heap.put_back(entry)
        if found is not None:
            self._forget(found.work)
        return found

    def _forget(self, work: Work) -> None:
        queue = self._lanes.get(work.lane)
        known = queue.ranked.discard(work.id) if queue is not None else None
        if queue is not None and known is not None:
            queue.arrived.discard(work.id)
            queue.cost -= known.cost
            if not queue.ranked:
                del self._lanes[work.lane]


def smaller(work: Work, other: Work) -> bool:
    """Whether a work may fit where another one does not: credits are tokens."""
    if work.kind != "generate" or other.kind != "generate":
        return True
    return work.tokens_in < other.tokens_in or work.tokens_in + work.tokens_out < other.tokens_in + other.tokens_out
