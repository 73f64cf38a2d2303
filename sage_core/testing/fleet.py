"""Engines that exist only as credits, and a loop that drives a scheduler over them in virtual time."""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Mapping, Sequence

from sage_core.common.clock import SECOND
from sage_core.common.contracts import Scheduler
from sage_core.common.records import (
    Decision,
    Dispatch,
    Finished,
    First,
    Idle,
    Lane,
    Place,
    Queued,
    Record,
    Rejected,
    Shed,
    Withdrawn,
    Work,
)

#: Predicted seconds for each input and each output token.
SECONDS_IN, SECONDS_OUT = 1e-4, 2e-2


class FakeFleet:
    """A `Fleet` of engines by lane and name, each with a number of sequences: ``{"chat": {"gpu0": 4}}``.

    Args:
        engines: sequences an engine holds at once, by lane and engine.
        tokens: input and output tokens an engine holds at once; engines that are not named have no such limit.
    """

    def __init__(self, engines: Mapping[Lane, Mapping[str, int]], *, tokens: Mapping[str, int] | None = None) -> None:
        self._engines = {lane: dict(pool) for lane, pool in engines.items()}
        self._tokens = dict(tokens or {})
        self._held: dict[str, dict[str, Work]] = {engine: {} for pool in engines.values() for engine in pool}

    def room(self, lane: Lane) -> bool:
        return any(len(self._held[engine]) < size for engine, size in self._engines.get(lane, {}).items())

    def open(self, work: Work) -> Iterable[Place]:
        return [
            self._place(engine)
            for engine, size in self._engines.get(work.lane, {}).items()
            if len(self._held[engine]) < size and self._fits(engine, work)
        ]

    def pick(self, work: Work, places: Iterable[Place] | None = None) -> Place | None:
        """Return the open place with the fewest works; the first named among equals."""
        return min(self.open(work) if places is None else places, key=lambda place: place.running, default=None)

    def cost(self, work: Work, place: Place | None = None) -> float:
        return work.cost

    def ttft(self, work: Work, place: Place) -> float:
        return work.tokens_in * SECONDS_IN

    def tpot(self, work: Work, place: Place) -> float:
        return place.itl or SECONDS_OUT

    def cached(self, work: Work, place: Place) -> int:
        return 0

    def drain(self, lane: Lane) -> float:
        return float(len(self._engines.get(lane, {})))

    def take(self, work: Work, place: Place) -> None:
        """Move a credit as the manager does at a dispatch; refuses a place that is not open to the work."""
        if place.engine not in {each.engine for each in self.open(work)}:
            raise AssertionError(f"work {work.id!r} was dispatched to {place.engine!r}, which is not open to it")
        self._held[place.engine][work.id] = work

    def give_back(self, work: Work) -> str:
        """Return the work's credit, and the engine that held it."""
        for engine, held in self._held.items():
            if held.pop(work.id, None) is not None:
                return engine
        raise AssertionError(f"work {work.id!r} is in no engine")

    def _place(self, engine: str) -> Place:
        held = self._held[engine].values()
        return Place(engine=engine, running=len(held), load=sum(work.cost for work in held))

    def _fits(self, engine: str, work: Work) -> bool:
        limit = self._tokens.get(engine)
        held = sum(each.tokens_in + each.tokens_out for each in self._held[engine].values())
        return limit is None or held + work.tokens_in + work.tokens_out <= limit


class Driven(Record):
    """What a scheduler did in `drive`."""

    #: Every decision with its time in ns, in order, `Idle` included.
    decisions: list[tuple[int, Decision]]
    #: Ids by what became of the work.
    dispatched: list[str]
    shed: list[str]
    rejected: list[str]
    withdrawn: list[str]


def drive(
    scheduler: Scheduler,
    fleet: FakeFleet,
    works: Sequence[Work],
    *,
    withdraw: Mapping[str, int] | None = None,
) -> Driven:
    """Run works through a scheduler as the manager does, and hold it to the manager's rules.

    A work arrives at its `arrival` and holds its engine for `cost` seconds. `withdraw` maps ids to the time (ns) at
    which the caller cancels; a work that has been dispatched by then is not affected. Raises `AssertionError` where
    the scheduler dispatches what is not queued or where there is no room, never settles, or lets works starve.
    """
    return _Loop(scheduler, fleet, works, withdraw or {}).run()


_ARRIVE, _WITHDRAW, _FINISH, _WAKE = range(4)


class _Loop:
    def __init__(
        self, scheduler: Scheduler, fleet: FakeFleet, works: Sequence[Work], withdraw: Mapping[str, int]
    ) -> None:
        self._scheduler = scheduler
        self._fleet = fleet
        self._queued: dict[str, Work] = {}
        self._done = Driven(decisions=[], dispatched=[], shed=[], rejected=[], withdrawn=[])
        by_id = {work.id: work for work in works}
        self._sequence = 0
        self._events: list[tuple[int, int, int, Work | None]] = []
        for work in works:
            self._at(work.arrival, _ARRIVE, work)
        for name, moment in withdraw.items():
            self._at(moment, _WITHDRAW, by_id[name])

    def run(self) -> Driven:
        while self._events:
            now = self._events[0][0]
            # All events of an instant before one round of decisions, as in the manager.
            while self._events and self._events[0][0] == now:
                _, kind, _, work = heapq.heappop(self._events)
                if work is not None:
                    self._apply(kind, work, now)
            self._decide(now)
        assert not self._queued, f"{len(self._queued)} works starve: {sorted(self._queued)[:5]}"
        return self._done

    def _at(self, moment: int, kind: int, work: Work | None) -> None:
        self._sequence += 1
        heapq.heappush(self._events, (moment, kind, self._sequence, work))

    def _apply(self, kind: int, work: Work, now: int) -> None:
        if kind == _ARRIVE:
            verdict = self._scheduler.submit(work, self._fleet, now)
            if isinstance(verdict, Rejected):
                self._done.rejected.append(work.id)
            else:
                assert isinstance(verdict, Queued), f"submit returned {verdict!r}, which is no verdict"
                self._queued[work.id] = work
        elif kind == _WITHDRAW and work.id in self._queued:
            del self._queued[work.id]
            self._done.withdrawn.append(work.id)
            self._scheduler.observe(Withdrawn(work=work), now)
        elif kind == _FINISH:
            engine = self._fleet.give_back(work)
            self._scheduler.observe(First(work=work, engine=engine), now)
            self._scheduler.observe(Finished(work=work, engine=engine, seconds=work.cost), now)

    def _decide(self, now: int) -> None:
        # Each decision but the last takes one work out of the queue, so more calls than works cannot be right.
        for _ in range(len(self._queued) + 2):
            decision = self._scheduler.next(self._fleet, now)
            self._done.decisions.append((now, decision))
            if isinstance(decision, Idle):
                if decision.until is not None:
                    assert decision.until > now, f"Idle.until {decision.until} is not after now {now}"
                    self._at(decision.until, _WAKE, None)
                return
            assert isinstance(decision, Dispatch | Shed), f"next returned {decision!r}, which is no decision"
            work = decision.work
            assert self._queued.get(work.id) == work, f"{type(decision).__name__} of {work.id!r}, which is not queued"
            del self._queued[work.id]
            if isinstance(decision, Shed):
                self._done.shed.append(work.id)
            else:
                self._fleet.take(work, decision.place)
                self._done.dispatched.append(work.id)
                self._at(now + max(1, round(work.cost * SECOND)), _FINISH, work)
        raise AssertionError(f"next does not settle: no Idle at {now} with {len(self._queued)} works queued")
