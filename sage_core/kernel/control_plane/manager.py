"""The control plane as a state machine: inputs and `now` go in, actions come out; no I/O, no clock, no threads."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from sage_core.common.contracts import Scheduler
from sage_core.common.errors import UsageError
from sage_core.common.records import Dispatch, EngineDown, EngineUp, Finished, First, Idle, Lane, Rejected, Shed, Work
from sage_core.kernel.control_plane import events
from sage_core.kernel.control_plane.backlog import Backlog, fifo
from sage_core.kernel.control_plane.embedding_executor import EmbeddingExecutor
from sage_core.kernel.control_plane.fleet import Ledger, Selects
from sage_core.kernel.control_plane.flights import Fate, Flight, Flights, Live, decided, ended
from sage_core.kernel.control_plane.request_classifier import RequestClassifier, pool_of

#: Engines that may be lost with a work, any of which it may have killed, before that becomes the caller's error.
LOSSES = 2


class ControlPlaneManager:
    """Owns every request from `Submitted` to its one `End`, the backlog, and the ledger of credits.

    Args:
        policy: scheduler of requests; None means fifo.
        selector: chooses among the engines that fit; None means the least loaded.
    """

    def __init__(self, policy: Scheduler | None = None, selector: Selects | None = None) -> None:
        self._executor = EmbeddingExecutor()
        self._classifier = RequestClassifier()
        self._ledger = Ledger(self._executor, selector)
        self._flights = Flights(self._ledger, self._executor)
        self._backlog = Backlog(policy or fifo(), self._ledger, self._flights.objection, lambda: not self._flights)
        self._live: dict[str, Live] = {}
        #: Requests of lanes without a ready engine, in order of arrival.
        self._room: dict[Lane, dict[str, Live]] = {}
        #: Engine being opened → its lane.
        self._starting: dict[str, Lane] = {}
        self._engines = 0
        self._armed: int | None = None
        self._actions: list[events.Action] = []
        self._handlers: dict[type, Callable[..., None]] = {
            events.Submitted: self._submitted,
            events.Started: self._started,
            events.Completed: self._completed,
            events.Broke: self._broke,
            events.Cancelled: self._cancelled,
            events.EngineOpened: self._engine_opened,
            events.EngineLost: self._engine_lost,
            events.Tick: self._ticked,
        }

    @property
    def faults(self) -> tuple[str, ...]:
        """What was wrong with the policy and the selector that had to be replaced."""
        return (*self._backlog.faults, *self._ledger.faults)

    @property
    def held(self) -> int:
        """Everything in flight, queued or booked: 0 means that each request has ended and each credit is back."""
        requests = len(self._live) + sum(map(len, self._room.values()))
        return requests + len(self._backlog) + len(self._flights) + self._executor.size + self._ledger.taken

    def step(self, inputs: Iterable[events.Input], now: int) -> list[events.Action]:
        """Apply all inputs of one instant, decide until the policy is idle, and say what is to be done."""
        self._actions = []
        for event in inputs:
            self._handlers[type(event)](event, now)
        wake = self._schedule(now)
        while self._depart(now):
            wake = self._schedule(now)
        self._arm([wake, *self._flights.wake()])
        return self._actions

    # ------------------------------------------------------------ inputs

    def _submitted(self, event: events.Submitted, now: int) -> None:
        outline = event.outline
        if outline.id in self._live:
            raise UsageError(f"request {outline.id!r} is in flight already", "ids are unique among live requests")
        live = self._live[outline.id] = Live(outline, now)
        if self._ledger.capacity(outline.lane) is None:
            self._room.setdefault(outline.lane, {})[outline.id] = live
            self._start(outline.lane)
        else:
            self._enter(live, now)

    def _started(self, event: events.Started, now: int) -> None:
        flight = self._flights.get(event.ticket)
        if flight is not None and not flight.streamed:
            flight.streamed = True
            self._backlog.observe(First(work=flight.works[0], engine=flight.seats.engine), now)

    def _completed(self, event: events.Completed, now: int) -> None:
        flight = self._land(event, now)
        if flight is None:
            return
        # What an engine counted is exact; what was estimated decides only where it counts nothing.
        tokens = event.tokens_out if flight.works[0].kind == "generate" else event.tokens_in or flight.tokens
        self._ledger.learn(flight.works[0], flight.seats.engine, tokens, event.seconds)
        if flight.live is None:
            self._deliver(flight, Fate(outcome="done", flight=flight, actual=event.seconds), now)
        elif not flight.aborted:
            live = flight.live
            self._classifier.learn(live.outline, event.tokens_in, event.tokens_out)
            self._finish(live, Fate(outcome="done", flight=flight, actual=event.seconds), now)

    def _broke(self, event: events.Broke, now: int) -> None:
        flight = self._land(event, now)
        if flight is None or flight.aborted:
            return
        if len(flight.slices) > 1:
            for part in flight.slices:
                part.alone = True
                if self._executor.again(part):
                    self._queue(part.work, now)
            return
        fate = Fate(outcome="failed", reason=event.reason, flight=flight, actual=event.seconds)
        self._give_up(flight.works[0], fate, now)
        engine = flight.seats.engine
        if event.fatal:
            self._strike(engine, event.reason, now, culprit=True)
            self._actions.append(events.StopEngine(engine=engine))

    def _cancelled(self, event: events.Cancelled, now: int) -> None:
        live = self._live.get(event.request)
        if live is not None:
            self._finish(live, Fate(outcome="cancelled", reason="cancelled by the caller"), now)

    def _engine_opened(self, event: events.EngineOpened, now: int) -> None:
        lane = self._starting.pop(event.engine, None)
        if lane is None:
            return
        self._ledger.add(event.info, lane)
        self._backlog.observe(EngineUp(engine=event.engine, lane=lane), now)
        for live in self._room.pop(lane, {}).values():
            self._enter(live, now)

    def _engine_lost(self, event: events.EngineLost, now: int) -> None:
        lane = self._starting.pop(event.engine, None)
        if lane is None:
            self._strike(event.engine, event.reason, now, culprit=False)
        else:
            self._refuse(lane, event, now)

    def _refuse(self, lane: Lane, event: events.EngineLost, now: int) -> None:
        fate = Fate(outcome="failed", reason=event.reason, engine=event.engine)
        for live in list(self._room.pop(lane, {}).values()):
            self._finish(live, fate, now)
        for work in self._backlog.works():
            if pool_of(work) == lane and work.id in self._backlog:
                self._backlog.withdraw(work, now)
                self._give_up(work, fate, now)

    def _strike(self, engine: str, reason: str, now: int, *, culprit: bool) -> None:
        # Where the culprit is known, the rest of what the engine held is above suspicion.
        member = self._ledger.remove(engine)
        if member is None:
            return
        self._backlog.observe(EngineDown(engine=engine, lane=member.lane), now)
        for flight in self._flights.crash(engine):
            if not flight.aborted:
                self._actions.append(events.Abort(ticket=flight.ticket))
            for work in flight.works:
                self._retry(flight, work, reason, now, suspect=not culprit)
        if any(pool_of(work) == member.lane for work in self._backlog.works()):
            self._start(member.lane)

    def _ticked(self, event: events.Tick, now: int) -> None:
        # The timer has gone off: the same time may have to be armed anew.
        self._armed = None

    # ------------------------------------------------------------ life of a request

    def _enter(self, live: Live, now: int) -> None:
        outline = live.outline
        work = self._classifier.classify(outline, live.arrival)
        if not outline.sizes:
            self._end(live, Fate(outcome="done"), now)
        elif outline.kind == "embed":
            capacity = self._ledger.capacity(outline.lane)
            assert capacity is not None
            for part in self._executor.take(outline, work, self._classifier.tokens(outline), capacity):
                # A rejected sibling has ended the request and emptied the rest.
                if part.rows:
                    self._queue(part.work, now)
        else:
            live.work = work
            self._queue(work, now)

    def _queue(self, work: Work, now: int) -> None:
        verdict = self._backlog.submit(work, now)
        if isinstance(verdict, Rejected):
            self._give_up(work, _rejection(verdict), now)

    def _retry(self, flight: Flight, work: Work, reason: str, now: int, *, suspect: bool) -> None:
        if flight.aborted:
            return
        lost = flight.live or self._executor.slice(work.id)
        lost.losses += suspect
        if lost.losses >= LOSSES or flight.streamed:
            self._give_up(work, Fate(outcome="failed", reason=reason, flight=flight, engine=flight.seats.engine), now)
        elif isinstance(lost, Live) or self._executor.again(lost):
            self._queue(work, now)

    def _deliver(self, flight: Flight, fate: Fate, now: int) -> None:
        for request, share, complete in self._executor.finish(flight.slices):
            live = self._live[request]
            fill = events.Fill(request=request, ticket=flight.ticket, rows=tuple(share.rows), at=tuple(share.at))
            self._actions.append(fill)
            self._actions.append(decided(live, fate, now, rows=len(share.rows), tokens=share.tokens))
            if complete:
                del self._live[request]
                self._actions.append(ended(live, fate))

    def _give_up(self, work: Work, fate: Fate, now: int) -> None:
        requests = self._executor.fail(self._executor.slice(work.id)) if work.kind == "embed" else [work.id]
        for request in requests:
            live = self._live.get(request)
            if live is not None:
                self._finish(live, fate, now)

    def _finish(self, live: Live, fate: Fate, now: int) -> None:
        self._actions.append(decided(live, fate, now))
        self._end(live, fate, now)

    def _end(self, live: Live, fate: Fate, now: int) -> None:
        outline = live.outline
        del self._live[outline.id]
        self._room.get(outline.lane, {}).pop(outline.id, None)
        for part in self._executor.leave(outline.id):
            self._backlog.withdraw(part.work, now)
        if live.work is not None:
            self._backlog.withdraw(live.work, now)
        if live.flight is not None and self._flights.get(live.flight.ticket) is not None:
            live.flight.aborted = True
            self._actions.append(events.Abort(ticket=live.flight.ticket))
        self._actions.append(ended(live, fate))

    # ------------------------------------------------------------ decisions

    def _schedule(self, now: int) -> int | None:
        while True:
            decision = self._backlog.decide(now)
            if isinstance(decision, Idle):
                return decision.until
            if isinstance(decision, Shed):
                self._give_up(decision.work, _rejection(decision), now)
            else:
                self._dispatch(decision, now)

    def _dispatch(self, decision: Dispatch, now: int) -> None:
        work, place = decision.work, decision.place
        if work.kind == "embed":
            self._departed(self._flights.board(work, place, now), now)
        else:
            flight = self._flights.launch(work, place, self._live[work.id], now)
            self._actions.append(events.DispatchOne(ticket=flight.ticket, engine=place.engine, request=work.id))

    def _departed(self, what: events.DispatchBatch | Flight | None, now: int) -> None:
        if isinstance(what, events.DispatchBatch):
            self._actions.append(what)
        elif what is not None:
            for part in what.slices:
                self._executor.fail(part)
                self._backlog.observe(Finished(work=part.work, engine=what.seats.engine, ok=False), now)

    def _depart(self, now: int) -> bool:
        departed = list(self._flights.depart(now))
        for each in departed:
            self._departed(each, now)
        return bool(departed)

    def _land(self, event: events.Completed | events.Broke, now: int) -> Flight | None:
        flight = self._flights.land(event.ticket)
        if flight is None:
            return None
        for work in flight.works:
            finished = Finished(
                work=work,
                engine=flight.seats.engine,
                tokens_in=work.tokens_in,
                tokens_out=event.tokens_out if isinstance(event, events.Completed) else 0,
                seconds=event.seconds,
                ok=isinstance(event, events.Completed),
            )
            self._backlog.observe(finished, now)
        return flight

    # ------------------------------------------------------------ engines and time

    def _start(self, lane: Lane) -> None:
        if lane not in self._starting.values():
            self._engines += 1
            engine = f"{lane}#{self._engines}"
            self._starting[engine] = lane
            self._actions.append(events.StartEngine(engine=engine, lane=lane))

    def _arm(self, times: Iterable[int | None]) -> None:
        at = min((time for time in times if time is not None), default=None)
        if at != self._armed:
            self._armed = at
            self._actions.append(events.ArmTimer(at=at))


def _rejection(verdict: Rejected | Shed) -> Fate:
    return Fate(outcome="rejected", reason=verdict.reason, retry_after=verdict.retry_after)
