"""The control plane as a state machine: inputs and `now` go in, actions come out; no I/O, no clock, no threads."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

import msgspec

from sage_core.common.config import ClassConfig
from sage_core.common.errors import UsageError
from sage_core.common.records import (
    EngineUp,
    First,
    Lane,
    Place,
    Progress,
    ServiceClass,
)
from sage_core.kernel.control_plane import events
from sage_core.kernel.control_plane.backlog import fifo
from sage_core.kernel.control_plane.fleet import Selects
from sage_core.kernel.control_plane.flights import Fate, Flight, Live
from sage_core.kernel.control_plane.history import Description
from sage_core.kernel.control_plane.lifecycle import Lifecycle, no_engine, rejection
from sage_core.kernel.control_plane.pool import Pool
from sage_core.kernel.control_plane.pools import Policies

#: Attempts that engines may fail before the last of their errors becomes the caller's.
ATTEMPTS = 3


class ControlPlaneManager(Lifecycle):
    """Owns every request from `Submitted` to its one `End`, the queues of all pools, and the ledger of credits.

    Args:
        policies: makes a scheduler for each pool; by default fifo, whatever the name.
        selector: chooses among the engines that fit; None means the least loaded.
        policy: the scheduler of every pool that names none of its own.
        classes: what service classes ask for where a request does not say.
    """

    def __init__(
        self,
        policies: Policies = lambda name: fifo(),
        selector: Selects | None = None,
        *,
        policy: str = "",
        classes: Mapping[ServiceClass, ClassConfig] | None = None,
    ) -> None:
        super().__init__(policies, selector, policy=policy, classes=classes)
        self._ledger.drains = self._drain_of
        self._now = 0
        self._armed: int | None = None
        self._handlers: dict[type, Callable[..., None]] = {
            events.Submitted: self._submitted,
            events.Started: self._started,
            events.Completed: self._completed,
            events.Broke: self._broke,
            events.Cancelled: self._cancelled,
            events.EngineOpened: self._engine_opened,
            events.EngineLost: self._engine_lost,
            events.Paced: self._paced,
            events.Scraped: self._scraped,
            events.PoolSet: self._pool_set,
            events.PoolGone: self._pool_gone,
            events.PolicySet: self._policy_set,
            events.ClassesSet: self._classes_set,
            events.Drain: self._drained,
            events.Tick: self._ticked,
        }

    @property
    def faults(self) -> tuple[str, ...]:
        """What was wrong with the policies and the selector that had to be replaced."""
        return (*(fault for pool in self._pools.lanes.values() for fault in pool.backlog.faults), *self._ledger.faults)

    @property
    def held(self) -> int:
        """Everything in flight, queued or booked: 0 means that each request has ended and each credit is back."""
        queued = sum(len(pool.backlog) + len(pool.line) for pool in self._pools.lanes.values())
        return len(self._live) + queued + len(self._flights) + self._executor.size + self._ledger.taken

    @property
    def pools(self) -> dict[Lane, Pool]:
        """Every pool, for those who look; only the manager changes them."""
        return self._pools.lanes

    def place(self, engine: str) -> Place | None:
        """What an engine holds, for those who look; None while it is not up."""
        pool = self._pools.by_engine.get(engine)
        seats = self._ledger.seats(engine, pool.lane) if pool is not None else None
        return None if seats is None else seats.place

    def describe(self, request: str) -> Description | None:
        """What can be told about a request that is live or has ended a while ago; None for any other."""
        live = self._live.get(request)
        if live is None:
            return self._history.past(request)
        pool = self._pools.get(live.outline.lane)
        ahead = list(pool.line).index(request) if request in pool.line else None
        return self._history.live(live, self._now, ahead=ahead, room=request in pool.room)

    def step(self, inputs: Iterable[events.Input], now: int) -> list[events.Action]:
        """Apply all inputs of one instant, decide until the policies are idle, and say what is to be done."""
        self._actions = []
        self._now = now
        for event in inputs:
            self._handlers[type(event)](event, now)
        for flight in self._flights.read(now):
            self._pools.touch(self._pools.get(flight.seats.lane))
        for pool in self._pools.lanes.values():
            if pool.wake is not None and pool.wake <= now:
                self._pools.touch(pool)
        while self._pools.touched or self._depart(now):
            while self._pools.touched:
                self._settle(self._pools.touched.pop(next(iter(self._pools.touched))), now)
        self._arm([*(pool.wake for pool in self._pools.lanes.values()), *self._flights.wake()])
        return self._actions

    # ------------------------------------------------------------ inputs: requests

    def _submitted(self, event: events.Submitted, now: int) -> None:
        outline = event.outline
        if outline.id in self._live:
            raise UsageError(f"request {outline.id!r} is in flight already", "ids are unique among live requests")
        pool = self._pools.get(outline.lane, outline.model)
        live = self._live[outline.id] = Live(outline, now)
        refused = pool.refusal(sum(outline.sizes))
        if refused is not None:
            # Some of those that arrived in this instant may not have to wait at all.
            self._settle(pool, now)
            refused = pool.refusal(sum(outline.sizes))
        if refused is not None:
            refused = msgspec.structs.replace(refused, retry_after=self._retry_after(pool))
            self._finish(live, rejection(refused), now)
        elif self._ledger.capacity(outline.lane) is not None:
            pool.enter(live)
            self._enter(live, now)
        elif not pool.hopeful(now):
            self._finish(live, no_engine(pool, now), now)
        else:
            pool.enter(live)
            pool.room[outline.id] = live
        self._pools.touch(pool)

    def _started(self, event: events.Started, now: int) -> None:
        flight = self._flights.get(event.ticket)
        if flight is not None and not flight.streamed:
            self._flights.stream(flight, event.seconds)
            pool = self._pools.get(flight.seats.lane)
            pool.backlog.observe(First(work=flight.works[0], engine=flight.seats.engine, seconds=event.seconds), now)
            self._pools.touch(pool)

    def _completed(self, event: events.Completed, now: int) -> None:
        flight = self._land(event, now)
        if flight is None:
            return
        standing = self._pools.standing(flight.seats.engine)
        standing.succeed()
        pool = self._pools.by_engine[standing.engine]
        pool.recovered(standing.member)
        tripped = standing.paused_until is not None and not standing.asked
        if standing.state == "up" and (tripped or flight.seats.probing):
            standing.paused_until = None
            pool.paused.pop(standing.engine, None)
            self._ledger.reopen(standing.engine)
        work = flight.works[0]
        if work.kind == "generate":
            self._ledger.wrote(work, flight.seats, event.tokens_out, event.seconds, first=flight.first, met=flight.met)
        else:
            # What an engine counted is exact; what was estimated decides only where it counts nothing.
            self._ledger.learn(work, flight.seats.engine, event.tokens_in or flight.tokens, event.seconds)
        fate = Fate(
            outcome="done",
            flight=flight,
            actual=event.seconds,
            tokens_in=event.tokens_in,
            tokens_out=event.tokens_out,
            cached=event.cached,
        )
        if flight.live is None:
            self._deliver(flight, fate, now)
        elif not flight.aborted:
            self._classifier.learn(flight.live.outline, event.tokens_in, event.tokens_out)
            self._finish(flight.live, fate, now)

    def _broke(self, event: events.Broke, now: int) -> None:
        flight = self._land(event, now)
        if flight is None:
            return
        engine = flight.seats.engine
        if event.again:
            self._stumble(flight, event, now)
        elif flight.aborted:
            self._drop(flight)
        elif len(flight.slices) > 1:
            for part in flight.slices:
                part.alone = True
                if self._again(part):
                    self._queue(part.work, now)
        else:
            fate = Fate(outcome="failed", reason=event.reason, flight=flight, actual=event.seconds)
            self._give_up(flight.works[0], fate, now)
        if event.fatal:
            self._strike(engine, event.reason, now, culprit=True)
            self._actions.append(events.StopEngine(engine=engine))

    def _stumble(self, flight: Flight, event: events.Broke, now: int) -> None:
        engine = flight.seats.engine
        standing = self._pools.standing(engine)
        if standing.state == "up" and standing.fail(now, event.pause):
            self._pools.by_engine[engine].paused[engine] = standing
            self._ledger.close(engine)
        if flight.aborted:
            self._drop(flight)
            return
        pool = self._pools.by_engine[engine]
        for work in flight.works:
            tried = flight.live or self._executor.slice(work.id)
            tried.attempts += 1
            if flight.streamed or tried.attempts >= ATTEMPTS or not pool.may_retry():
                self._give_up(work, Fate(outcome="failed", reason=event.reason, flight=flight), now)
            elif isinstance(tried, Live) or self._again(tried):
                self._ledger.avoid(work.id, engine)
                self._queue(work, now)

    def _cancelled(self, event: events.Cancelled, now: int) -> None:
        live = self._live.get(event.request)
        if live is not None:
            self._finish(live, Fate(outcome="cancelled", reason="cancelled by the caller"), now)

    # ------------------------------------------------------------ inputs: engines and settings

    def _engine_opened(self, event: events.EngineOpened, now: int) -> None:
        pool = self._pools.by_engine.get(event.engine)
        if pool is None:
            return
        standing = pool.engines[event.engine]
        pool.turn(standing, "up")
        standing.since = now
        self._ledger.add(event.info, pool.lane)
        pool.backlog.observe(EngineUp(engine=event.engine, lane=pool.lane), now)
        for live in list(pool.room.values()):
            del pool.room[live.outline.id]
            self._enter(live, now)
        self._pools.touch(pool)

    def _engine_lost(self, event: events.EngineLost, now: int) -> None:
        pool = self._pools.by_engine.get(event.engine)
        if pool is None:
            return
        if pool.engines[event.engine].state != "starting":
            self._strike(event.engine, event.reason, now, culprit=False)
            return
        self._pools.remove(pool, event.engine, event.reason, now)
        if not pool.alive:
            self._refuse(pool, Fate(outcome="failed", reason=event.reason, engine=event.engine), now)

    def _paced(self, event: events.Paced, now: int) -> None:
        pool = self._pools.by_engine.get(event.engine)
        if pool is not None:
            self._ledger.pace(event.engine, event.itl, now)
            pool.backlog.observe(Progress(engine=event.engine, itl=event.itl), now)
            self._pools.touch(pool)

    def _scraped(self, event: events.Scraped, now: int) -> None:
        pool = self._pools.by_engine.get(event.engine)
        seats = self._ledger.seats(event.engine, pool.lane) if pool is not None else None
        if pool is not None and seats is not None and seats.share(event.occupancy):
            self._ledger.refresh(seats)
            self._pools.touch(pool)

    def _pool_set(self, event: events.PoolSet, now: int) -> None:
        pool = self._pools.lanes.get(event.pool.lane)
        if pool is None:
            pool = self._pools.add(event.pool)
        else:
            before, pool.spec = pool.spec.policy, event.pool
            if before != event.pool.policy and not self._switch(pool, event.pool.policy or self._pools.policy, now):
                pool.spec = msgspec.structs.replace(event.pool, policy=before)
            kept = {*range(event.pool.members)} - {*event.pool.closed}
            for standing in [each for each in pool.engines.values() if each.member not in kept]:
                self._pools.drain(pool, standing)
        self._pools.touch(pool)

    def _pool_gone(self, event: events.PoolGone, now: int) -> None:
        pool = self._pools.lanes.get(event.lane)
        if pool is not None:
            pool.spec = msgspec.structs.replace(pool.spec, members=0, min=0)
            for standing in list(pool.engines.values()):
                self._pools.drain(pool, standing)
            self._refuse(pool, Fate(outcome="unavailable", reason="the model is not served any more"), now)
            self._pools.touch(pool)

    def _policy_set(self, event: events.PolicySet, now: int) -> None:
        if event.lane:
            pool = self._pools.get(event.lane)
            if self._switch(pool, event.policy or self._pools.policy, now):
                pool.spec = msgspec.structs.replace(pool.spec, policy=event.policy)
        elif self._pools.scheduler(event.policy) is not None:
            self._pools.policy = event.policy
            for pool in self._pools.lanes.values():
                if not pool.spec.policy:
                    self._switch(pool, event.policy, now)

    def _classes_set(self, event: events.ClassesSet, now: int) -> None:
        self._classifier.ask(event.classes)

    def _drained(self, event: events.Drain, now: int) -> None:
        pool = self._pools.by_engine.get(event.engine)
        if pool is not None:
            self._pools.drain(pool, pool.engines[event.engine])
            self._pools.touch(pool)

    def _ticked(self, event: events.Tick, now: int) -> None:
        # The timer has gone off: the same time may have to be armed anew.
        self._armed = None

    def _drain_of(self, lane: Lane) -> float:
        return self._pools.get(lane).drain(self._ledger.running(lane))

    def _arm(self, times: Iterable[int | None]) -> None:
        at = min((time for time in times if time is not None), default=None)
        if at != self._armed:
            self._armed = at
            self._actions.append(events.ArmTimer(at=at))
