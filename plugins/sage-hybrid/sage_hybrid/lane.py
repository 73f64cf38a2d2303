"""One lane under the policy: its queues, and the loop that the parts decide in."""

from __future__ import annotations

from sage_core import Dispatch, Fleet, Lane, Place, Shed, Work
from sage_hybrid.allocate import Allocate
from sage_hybrid.order import Order
from sage_hybrid.overload import Overload
from sage_hybrid.placing import Placing
from sage_hybrid.release import Release
from sage_hybrid.tenants import Skipped, Tenants

#: Works that fit nowhere and are passed before a class is given up for this instant; one that is no smaller than
#: another that fitted nowhere is passed without a look at the engines.
LOOK_AHEAD = 8
#: Doomed works put back in one call: each takes some 7 µs, and a call is to take less than 100.
PURGED_AT_ONCE = 6


class HybridLane:
    """The works of one lane.

    Args:
        name: the lane.
        queues: part *allocate*, its own for each lane as is *overload*; the other parts are shared.
    """

    def __init__(
        self, name: Lane, queues: Allocate, order: Order, release: Release, placing: Placing, overload: Overload
    ) -> None:
        self.queues = queues
        #: Something waits not for room but because its class is held back.
        self.held = False
        self._name = name
        self._order, self._release, self._placing, self._overload = order, release, placing, overload
        #: Works whose deadline is given up.
        self._late: dict[str, None] = {}

    def enter(self, work: Work, now: int) -> None:
        """Queue a work in its class, behind the feasible if its deadline has passed."""
        self.drop(work)
        if self._order.lost(work, now):
            self._late[work.id] = None
        self.queues.of(work).push(work, self._rank(work))
        self._overload.entered(work, now)
        self._release.arrived(work, now)

    def drop(self, work: Work) -> None:
        """Forget a queued work."""
        if self.queues.of(work).discard(work):
            self._overload.left(work)
            self._late.pop(work.id, None)

    def alarm(self) -> int | None:
        """When something is given up though nothing happens."""
        return self._overload.alarm()

    def shed(self, now: int) -> Shed | None:
        """What is to be given up, one at a time."""
        victim = self._overload.victim(now)
        if victim is not None:
            self.drop(victim.work)
        return victim

    def dispatch(self, fleet: Fleet, now: int) -> Dispatch | None:
        """What is sent next, of the first class that has something to send."""
        self.held = False
        purge = PURGED_AT_ONCE
        deferred = self._overload.defers(self._name, self.queues, fleet)
        stuck: Work | None = None
        for queue, floor in self.queues.turns():
            passed: list[Skipped] = []
            found: tuple[Work, Place] | None = None
            while len(passed) < LOOK_AHEAD and (work := queue.head()) is not None:
                late = work.id in self._late
                if purge and not late and self._order.lost(work, now):
                    purge -= 1
                    self._relegate(work, queue)
                    continue
                probed = stuck is None or smaller(work, stuck)
                open_to = list(fleet.open(work)) if probed else []
                admitted = self._release.admits(work, open_to, now, floor=floor) if open_to else []
                if open_to and (not admitted or (deferred and not floor and work.service_class == "batch")):
                    # Not its size but its class is held back, so the rest of the class is, too.
                    self.held = True
                    break
                best = self._best(work, admitted, fleet, now)
                if best is not None and purge and not late and self._order.doomed(work, best, fleet, now):
                    purge -= 1
                    self._relegate(work, queue)
                    continue
                # The configured filters have the last word.
                place = self._placing.confirm(work, best, fleet) if best is not None else None
                if place is not None:
                    found = work, place
                    break
                if probed and not open_to:
                    stuck = work
                passed.append(queue.skip())
            queue.restore(passed)
            if found is not None:
                return self._send(*found, now, floor=floor)
        return None

    def _best(self, work: Work, places: list[Place], fleet: Fleet, now: int) -> Place | None:
        if not places:
            return None
        best = self._placing.choose(work, places, fleet)
        if best is not None and len(places) > 1 and self._order.doomed(work, best, fleet, now):
            return self._placing.soonest(work, places, fleet)
        return best

    def _send(self, work: Work, place: Place, now: int, *, floor: bool) -> Dispatch:
        late = self._late.pop(work.id, 0) is None
        self._overload.left(work)
        self._overload.sent(work, now)
        self.queues.serve(work, floor=floor)
        self._release.sent(work, place)
        standing = "floor" if floor else "late" if late else "in time" if work.deadline else "no deadline"
        return Dispatch(work=work, place=place, why=f"{work.service_class}, {standing}")

    def _relegate(self, work: Work, queue: Tenants) -> None:
        self._late[work.id] = None
        queue.move(work, self._rank(work))

    def _rank(self, work: Work) -> float:
        return self._order.rank(work, work.id in self._late)


def smaller(work: Work, other: Work) -> bool:
    """Whether a work may fit where another one does not: credits are tokens."""
    if work.kind != "generate" or other.kind != "generate":
        return True
    return work.tokens_in < other.tokens_in or work.tokens_in + work.tokens_out < other.tokens_in + other.tokens_out
