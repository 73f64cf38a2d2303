"""Fair shares: the tenant who has been served least goes first."""

from __future__ import annotations

import heapq

from sage_core import (
    Decision,
    Dispatch,
    EngineDown,
    Event,
    Finished,
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
from sage_policies.counters import Counters
from sage_policies.lanes import LOOK_AHEAD, smaller


class VirtualTokenCounter:
    """Serves the tenant with the smallest counter of weighted tokens; each tenant's works go by arrival.

    A dispatch is charged as predicted, and what it really took when it ends; a tenant who comes back starts at the
    smallest counter of those who wait, so that idle time is not saved up. Each lane counts for itself, and a change of
    policy forgets the counters.

    Good: tenants who compete without deadlines: two who always have work differ by a bounded number of tokens,
    however much one of them sends. Loses: it knows no deadlines or sizes; with one tenant it is FIFO; a tenant's short
    question waits behind the same tenant's bulk.

    Source: "Fairness in Serving Large Language Models" (OSDI 2024, arXiv 2401.00588).
    """

    def __init__(self, *, weight_in: float = 1.0, weight_out: float = 2.0) -> None:
        self._weight_in, self._weight_out = weight_in, weight_out
        self._lanes: dict[Lane, Counters] = {}
        #: Engine → its works, and what was charged to whom for them.
        self._charged: dict[str, dict[str, tuple[Counters, str, float]]] = {}

    def submit(self, work: Work, fleet: Fleet, now: int) -> Verdict:
        """Queue the work; a tenant without others is lifted to the smallest counter."""
        lane = self._lanes.setdefault(work.lane, Counters())
        self._drop(lane, work)
        queue = lane.queues.get(work.tenant) or lane.returns(work.tenant)
        queue.push(work, float(work.arrival))
        return Queued()

    def next(self, fleet: Fleet, now: int) -> Decision:
        """Dispatch for the tenant served least, passing some works that fit nowhere."""
        for name, lane in self._lanes.items():
            if lane.queues and fleet.room(name) and (found := self._release(lane, fleet)) is not None:
                return found
        return Idle()

    def observe(self, event: Event, now: int) -> None:
        """Settle what ended, and drop what was withdrawn."""
        if isinstance(event, Withdrawn):
            self._drop(self._lanes.get(event.work.lane), event.work)
        elif isinstance(event, Finished):
            paid = self._charged.get(event.engine, {}).pop(event.work.id, None)
            if paid is not None:
                # An engine that counts nothing is taken at its prediction, unless it failed.
                read, written = event.tokens_in or event.work.tokens_in, event.tokens_out
                written = written or (event.work.tokens_out if event.ok else 0)
                paid[0].charge(paid[1], self._price(read - event.cached, written) - paid[2])
        elif isinstance(event, EngineDown):
            for lane, tenant, tokens in self._charged.pop(event.engine, {}).values():
                lane.charge(tenant, -tokens)

    def _price(self, tokens_in: int, tokens_out: int) -> float:
        return self._weight_in * tokens_in + self._weight_out * tokens_out

    def _release(self, lane: Counters, fleet: Fleet) -> Dispatch | None:
        passed: list[tuple[float, str]] = []
        look = Look(fleet)
        while look.place is None and look.passed < LOOK_AHEAD and lane.least() is not None:
            passed.append(heapq.heappop(lane.heap))
            look.into(lane.queues[passed[-1][1]])
        for entry in passed:
            heapq.heappush(lane.heap, entry)
        found = None
        if look.work is not None and look.place is not None:
            counter, tenant = passed[-1]
            found = Dispatch(work=look.work, place=look.place, why=f"{tenant} is at {counter:.0f} tokens")
        if found is not None:
            work = found.work
            paid = self._price(work.tokens_in, work.tokens_out)
            self._charged.setdefault(found.place.engine, {})[work.id] = (lane, work.tenant, paid)
            lane.charge(work.tenant, paid)
            self._drop(lane, work)
        return found

    def _drop(self, lane: Counters | None, work: Work) -> None:
        queue = lane.queues.get(work.tenant) if lane is not None else None
        if lane is not None and queue is not None and queue.discard(work.id) is not None and not queue:
            lane.leaves(work.tenant)


class Look:
    """A look for the first work that fits somewhere, past a bounded number of those that do not."""

    def __init__(self, fleet: Fleet) -> None:
        self.passed = 0
        self.work: Work | None = None
        self.place: Place | None = None
        self._fleet = fleet
        self._stuck: Work | None = None

    def into(self, queue: WorkHeap) -> None:
        """Look through one queue, which stays as it is."""
        seen: list[Ranked] = []
        while self.place is None and self.passed < LOOK_AHEAD and (head := queue.head()) is not None:
            self.work = head[3]
            if self._stuck is None or smaller(self.work, self._stuck):
                self.place = self._fleet.pick(self.work)
                self._stuck = self.work
            self.passed += self.place is None
            seen.append(queue.pop())
        for entry in seen:
            queue.put_back(entry)
