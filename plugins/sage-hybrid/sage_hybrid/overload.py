"""Part *overload*: what happens when more comes than can be served: admit, then defer, then shed."""

from __future__ import annotations

import math

from sage_core import SECOND, Fleet, Lane, Shed, Work, WorkHeap
from sage_hybrid.allocate import CLASSES, Allocate

#: Seconds told to those who are shed, at most.
LONGEST_WAIT = 3_600.0
#: How long too much must have waited before anything is shed (ns): a rate that has just begun to be known is too low.
PATIENCE = 10 * SECOND


class Overload:
    """A ladder by the lane's predicted wait, its queued engine-seconds over those it finishes each second.

    Everything is admitted first. Above `defer` seconds for the classes over batch, batch gets its floor and no more.
    Above `shed` seconds in all, for `PATIENCE` without a break, the costliest work of the lowest class that waits is
    given up, one at a time, until it is below; its caller learns when the rest will have been served.

    Sources: the cost ladder of arXiv 2604.06970; Mooncake (FAST 2025) for refusing early what cannot be served.

    Args:
        on: off admits everything, whatever waits.
    """

    def __init__(self, *, on: bool, defer: float, shed: float) -> None:
        self.on = on
        self._defer, self._shed = defer, shed
        #: Lane → works by cost, the costliest first, of each class.
        self._dear: dict[Lane, dict[str, WorkHeap]] = {}
        #: Lane → since when it has been above.
        self._over: dict[Lane, int] = {}

    def entered(self, work: Work) -> None:
        """Note a queued work."""
        if self.on:
            heaps = self._dear.setdefault(work.lane, {})
            heaps.setdefault(work.service_class, WorkHeap()).push(work, -work.cost)

    def left(self, work: Work) -> None:
        """Forget it: it is dispatched, shed or withdrawn."""
        heaps = self._dear.get(work.lane)
        if heaps is not None and work.service_class in heaps:
            heaps[work.service_class].discard(work.id)
            if not heaps[work.service_class]:
                del heaps[work.service_class]
                if not heaps:
                    del self._dear[work.lane]

    def defers(self, lane: Lane, queues: Allocate, fleet: Fleet) -> bool:
        """Whether batch work is held to its floor."""
        if not self.on or not queues.on:
            return False
        urgent = sum(queues.queues[name].cost for name in CLASSES[:-1])
        return urgent > 0.0 and urgent > self._defer * (fleet.drain(lane) or math.inf)

    def victim(self, lane: Lane, queues: Allocate, fleet: Fleet, now: int) -> Shed | None:
        """The work to give up now, if any."""
        waits = queues.cost
        rate = fleet.drain(lane) if self.on else 0.0
        if rate <= 0.0 or waits <= self._shed * rate:
            self._over.pop(lane, None)
            return None
        if now - self._over.setdefault(lane, now) < PATIENCE:
            return None
        heaps = self._dear[lane]
        head = next(heap for name in reversed(CLASSES) if (heap := heaps.get(name))).head()
        assert head is not None
        work = head[3]
        later = min(LONGEST_WAIT, max(1.0, math.ceil((waits - work.cost) / rate)))
        reason = (
            f"more waits than is served in {self._shed:g} s, and this is the costliest of class {work.service_class}"
        )
        return Shed(work=work, reason=reason, retry_after=later)
