"""Part *overload*: what happens when more comes than can be served: admit, then defer, then shed."""

from __future__ import annotations

import heapq
import math
from collections import OrderedDict

from sage_core import SECOND, Fleet, Lane, ServiceClass, Shed, Work
from sage_hybrid.allocate import CLASSES, Allocate
from sage_hybrid.rate import Rate

#: Seconds told to those who are shed, at most.
LONGEST_WAIT = 3_600.0
#: How long too much must have waited before anything is shed early (ns): a rate that has just begun to be known is low.
PATIENCE = 10 * SECOND
#: What waits too long is given up so much earlier at most (ns), so that the timer is not set anew for each work.
GRAIN = SECOND // 8
#: Works to be given up that are looked for at a time.
AT_ONCE = 64


class Overload:
    """A ladder for one lane: everything is admitted, then batch is deferred, then works are shed.

    - Above `defer` seconds of predicted wait for the classes over batch, batch gets its floor and no more.
    - A class's predicted wait is its queued engine-seconds over those of it that were dispatched each second, of late.
      Above `shed` seconds, for `PATIENCE` without a break, the costliest work of the lowest such class is given up, one
      at a time, until it is below.
    - What has been in the queue for `shed` seconds is given up whatever is predicted. So **nothing waits longer than
      `shed`**: by then a work is dispatched, or its caller knows when to come back.

    The first rule of shedding is there so that the last one is rarely needed: a queue of at most
    ``shed x rate of the class`` is served in its order before its time is over.

    Sources: the cost ladder of arXiv 2604.06970; Mooncake (FAST 2025) for refusing early what cannot be served.

    Args:
        on: off admits everything, whatever waits.
    """

    def __init__(self, *, on: bool, defer: float, shed: float) -> None:
        self.on = on
        self._defer, self._shed = defer, shed
        self._bound = round(shed * SECOND)
        #: How many works of each class wait, and what they cost together.
        self._counts = dict.fromkeys(CLASSES, 0)
        self._costs = dict.fromkeys(CLASSES, 0.0)
        #: Works in the order in which they came, and when.
        self._since: OrderedDict[str, tuple[int, Work]] = OrderedDict()
        self._rates: dict[ServiceClass, Rate] = {name: Rate() for name in CLASSES}
        #: Class → since when it has been above, and when that is looked at next.
        self._over: dict[ServiceClass, int] = {}
        self._next = 0
        #: The costliest works at the last look, the costliest last.
        self._dear: list[Work] = []

    def __len__(self) -> int:
        return len(self._since)

    def entered(self, work: Work, now: int) -> None:
        """Note a queued work."""
        if self.on:
            name = work.service_class
            if not self._counts[name]:
                # Nothing waited, so nothing was slow: what is to be known is how fast it goes from this moment on.
                self._rates[name].begin(now)
                self._costs[name] = 0.0
            self._counts[name] += 1
            self._costs[name] += work.cost
            self._since[work.id] = now, work

    def left(self, work: Work) -> None:
        """Forget it: it is dispatched, shed or withdrawn."""
        found = self._since.pop(work.id, None)
        if found is not None:
            self._counts[work.service_class] -= 1
            self._costs[work.service_class] -= found[1].cost

    def sent(self, work: Work, now: int) -> None:
        """Count a dispatch into its class's rate."""
        if self.on:
            self._rates[work.service_class].add(work.cost, now)

    def defers(self, lane: Lane, queues: Allocate, fleet: Fleet) -> bool:
        """Whether batch work is held to its floor."""
        if not self.on or not queues.on:
            return False
        urgent = sum(queues.queues[name].cost for name in CLASSES[:-1])
        return urgent > 0.0 and urgent > self._defer * (fleet.drain(lane) or math.inf)

    def alarm(self) -> int | None:
        """When the work that has waited longest is given up."""
        since, _ = next(iter(self._since.values()), (None, None))
        return None if since is None else (since + self._bound) // GRAIN * GRAIN

    def victim(self, now: int) -> Shed | None:
        """The work to give up at this moment, if any."""
        alarm = self.alarm()
        if alarm is not None and alarm <= now:
            _, work = next(iter(self._since.values()))
            return self._give_up(work, f"it has waited for {self._shed:g} s", now)
        if now < self._next:
            return None
        for name in reversed(CLASSES):
            if self._counts[name] and self._shed < self._wait(name, now) < math.inf:
                if now - self._over.setdefault(name, now) >= PATIENCE:
                    reason = f"more of class {name} waits than is served in {self._shed:g} s, and this is the costliest"
                    return self._give_up(self._costliest(name), reason, now)
            else:
                self._over.pop(name, None)
        self._next = now + GRAIN
        return None

    def _costliest(self, name: ServiceClass) -> Work:
        while True:
            while self._dear:
                work = self._dear.pop()
                if work.service_class == name and work.id in self._since:
                    return work
            # A look at all that waits is dear, and rare: to keep them in order would cost every request a little.
            waiting = (work for _, work in self._since.values() if work.service_class == name)
            self._dear = heapq.nlargest(AT_ONCE, waiting, key=lambda work: work.cost)[::-1]

    def _give_up(self, work: Work, reason: str, now: int) -> Shed:
        later = self._wait(work.service_class, now, without=work.cost)
        later = math.ceil(later if later < math.inf else self._shed)
        return Shed(work=work, reason=reason, retry_after=min(LONGEST_WAIT, max(1.0, later)))

    def _wait(self, name: ServiceClass, now: int, without: float = 0.0) -> float:
        """Predicted seconds until all of a class is dispatched; infinite where nothing of it has been of late."""
        rate = self._rates[name].per_second(now)
        return max(0.0, self._costs[name] - without) / rate if rate else math.inf
