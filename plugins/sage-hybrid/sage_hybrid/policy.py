"""The parts together: the scheduler that pools run under the name `hybrid`."""

from __future__ import annotations

from functools import partial

from sage_core import (
    SECOND,
    Decision,
    EngineDown,
    EngineUp,
    Event,
    Finished,
    Fleet,
    Idle,
    Lane,
    Queued,
    ServiceClass,
    Verdict,
    Withdrawn,
    Work,
)
from sage_hybrid.allocate import Allocate
from sage_hybrid.lane import HybridLane
from sage_hybrid.order import Order
from sage_hybrid.overload import Overload
from sage_hybrid.placing import Placing
from sage_hybrid.release import Release


class HybridSchedulingPolicy:
    """Release, order, allocate, place, overload: five parts, each of which can be switched off by an option.

    Good: interactive work with targets beside batch work on the same engines, several tenants, loads near capacity.
    Loses: with one class below some 0.7 of capacity it ties with fifo and `lmetric`; its release cap makes first tokens
    later to keep the pace of the others. Figures, wins and losses: docs/policies.md. Each part cites its sources.

    Args:
        reserve: engines of each pool closed to batch work.
        aging: seconds after which a work is overtaken by nothing that arrives.
        boost: head start of small works, see `Order`.
        standard: floor of the class standard, as a share of the engine-seconds.
        batch: floor of the class batch.
        quantum: engine-seconds by which tenants may differ before fairness goes before deadlines.
        strict: fairness goes before deadlines always.
        defer: predicted seconds of wait above which batch gets its floor only.
        shed: seconds that a work waits at most: what is predicted to wait longer is given up, the costliest first, and
            what has waited so long is given up at once. Counted from when it was queued, while engines are at work.
    """

    def __init__(
        self,
        *,
        release: bool = True,
        order: bool = True,
        allocate: bool = True,
        place: bool = True,
        overload: bool = True,
        reserve: int = 0,
        aging: float = 30.0,
        boost: float = 0.0,
        standard: float = 0.2,
        batch: float = 0.05,
        quantum: float = 0.5,
        strict: bool = False,
        defer: float = 1.0,
        shed: float = 300.0,
    ) -> None:
        self._release = Release(on=release, reserve=reserve)
        self._order = Order(on=order, aging=aging, boost=boost)
        self._placing = Placing(on=place)
        self._overload = partial(Overload, on=overload, defer=defer, shed=shed)
        shares: dict[ServiceClass, float] = {"standard": standard, "batch": batch}
        self._allocate = partial(Allocate, on=allocate, floors=shares, quantum=quantum, strict=strict)
        self._lanes: dict[Lane, HybridLane] = {}
        #: Engine → what it was sent, by id.
        self._sent: dict[str, dict[str, Work]] = {}

    def submit(self, work: Work, fleet: Fleet, now: int) -> Verdict:
        """Queue the work; the ladder of overload may give it up later."""
        lane = self._lanes.get(work.lane)
        if lane is None:
            parts = self._order, self._release, self._placing, self._overload()
            lane = self._lanes[work.lane] = HybridLane(work.lane, self._allocate(), *parts)
        lane.enter(work, now)
        return Queued()

    def next(self, fleet: Fleet, now: int) -> Decision:
        """Dispatch what is due, and when nothing can be sent, shed what is too much."""
        wake: list[int] = []
        for name, lane in self._lanes.items():
            if not len(lane.queues):
                continue
            if fleet.room(name):
                found = lane.dispatch(fleet, now)
                if found is not None:
                    self._sent.setdefault(found.place.engine, {})[found.work.id] = found.work
                    return found
                if lane.held:
                    # What is held back may be let go as time passes, though nothing else happens.
                    wake.append(now + SECOND)
            shed = lane.shed(now)
            if shed is not None:
                return shed
            if (alarm := lane.alarm()) is not None and any(self._sent.values()):
                # Where nothing runs, it is the manager's to say what becomes of those who wait.
                wake.append(alarm)
        return Idle(until=min(wake, default=None))

    def observe(self, event: Event, now: int) -> None:
        """Settle what ended, refund what was lost, drop what was withdrawn."""
        if isinstance(event, Withdrawn):
            if event.work.lane in self._lanes:
                self._lanes[event.work.lane].drop(event.work)
        elif isinstance(event, Finished):
            self._release.ended(event.work, event.engine)
            if self._sent.get(event.engine, {}).pop(event.work.id, None) is not None:
                self._lanes[event.work.lane].queues.settle(event)
        elif isinstance(event, EngineUp):
            self._release.up(event.engine, event.lane)
        elif isinstance(event, EngineDown):
            self._release.down(event.engine, event.lane)
            for work in self._sent.pop(event.engine, {}).values():
                self._lanes[work.lane].queues.refund(work)
