"""What becomes of requests between `Submitted` and `End`: queued, decided, sent, tried again, ended."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from sage_core.common.clock import SECOND
from sage_core.common.config import ClassConfig
from sage_core.common.records import (
    Dispatch,
    EngineDown,
    Finished,
    Idle,
    Rejected,
    ServiceClass,
    Shed,
    Work,
)
from sage_core.kernel.control_plane import events
from sage_core.kernel.control_plane.backlog import fifo
from sage_core.kernel.control_plane.choices import Choice
from sage_core.kernel.control_plane.embedding_executor import EmbeddingExecutor, Slice
from sage_core.kernel.control_plane.fleet import Ledger, Selects
from sage_core.kernel.control_plane.flights import Fate, Flight, Flights, Live, decided, ended
from sage_core.kernel.control_plane.history import History
from sage_core.kernel.control_plane.pool import Pool
from sage_core.kernel.control_plane.pools import Policies, Pools
from sage_core.kernel.control_plane.request_classifier import RequestClassifier, pool_of

#: Engines that may be lost with a work, any of which it may have killed, before that becomes the caller's error.
LOSSES = 2


class Lifecycle:
    """The half of the manager that its inputs drive; see `ControlPlaneManager` for the arguments."""

    def __init__(
        self,
        policies: Policies = lambda name: fifo(),
        selector: Selects | None = None,
        *,
        policy: str = "",
        classes: Mapping[ServiceClass, ClassConfig] | None = None,
    ) -> None:
        self._executor = EmbeddingExecutor()
        self._ledger = Ledger(self._executor, selector)
        self._classifier = RequestClassifier(classes, self._ledger.pace_of)
        self._flights = Flights(self._ledger, self._executor)
        self._pools = Pools(policies, self._ledger, self._flights, self._executor, self._act)
        self._pools.policy = policy
        self._live: dict[str, Live] = {}
        self._history = History()
        self._actions: list[events.Action] = []

    def _act(self, action: events.Action) -> None:
        self._actions.append(action)

    # ------------------------------------------------------------ life of a request

    def _enter(self, live: Live, now: int) -> None:
        outline = live.outline
        work = live.work = self._classifier.classify(outline, live.arrival)
        if not outline.sizes:
            self._end(live, Fate(outcome="done"), now)
        elif outline.kind == "embed":
            capacity = self._ledger.capacity(outline.lane)
            assert capacity is not None
            parts = self._executor.take(outline, work, self._classifier.tokens(outline), capacity)
            if not parts:
                # Every text is in flight already.
                self._pools.get(outline.lane).leave(live)
            for part in parts:
                # A rejected sibling has ended the request and emptied the rest.
                if part.rows:
                    self._queue(part.work, now)
        else:
            self._queue(work, now)

    def _queue(self, work: Work, now: int) -> None:
        pool = self._pools.get(pool_of(work))
        work = msgspec.structs.replace(work, cost=self._ledger.cost(work))
        verdict = pool.backlog.submit(work, now)
        if isinstance(verdict, Rejected):
            self._give_up(work, rejection(verdict), now)
        self._pools.touch(pool)

    def _retry(self, flight: Flight, work: Work, reason: str, now: int, *, suspect: bool) -> None:
        if flight.aborted:
            self._drop(flight)
            return
        lost = flight.live or self._executor.slice(work.id)
        lost.losses += suspect
        if lost.losses >= LOSSES or flight.streamed:
            self._give_up(work, Fate(outcome="failed", reason=reason, flight=flight, engine=flight.seats.engine), now)
        elif isinstance(lost, Live) or self._again(lost):
            self._queue(work, now)

    def _deliver(self, flight: Flight, fate: Fate, now: int) -> None:
        for part in flight.slices:
            self._ledger.forget(part.work.id)
        for request, share, complete in self._executor.finish(flight.slices):
            live = self._live[request]
            fill = events.Fill(request=request, ticket=flight.ticket, rows=tuple(share.rows), at=tuple(share.at))
            self._actions.append(fill)
            self._decided(decided(live, fate, now, rows=len(share.rows), tokens=share.tokens))
            if complete:
                del self._live[request]
                self._pools.get(live.outline.lane).leave(live)
                self._actions.append(ended(live, fate))

    def _give_up(self, work: Work, fate: Fate, now: int) -> None:
        requests = self._fail(self._executor.slice(work.id)) if work.kind == "embed" else [work.id]
        for request in requests:
            live = self._live.get(request)
            if live is not None:
                self._finish(live, fate, now)

    def _finish(self, live: Live, fate: Fate, now: int) -> None:
        self._decided(decided(live, fate, now))
        self._end(live, fate, now)

    def _decided(self, line: events.Decided) -> None:
        self._actions.append(line)
        self._history.add(line)

    def _end(self, live: Live, fate: Fate, now: int) -> None:
        outline = live.outline
        pool = self._pools.get(outline.lane)
        del self._live[outline.id]
        pool.leave(live)
        if outline.kind == "embed":
            self._disembark(outline.id, pool, now)
        elif live.work is not None:
            pool.backlog.withdraw(live.work, now)
            self._ledger.forget(live.work.id)
        if live.flight is not None and self._flights.get(live.flight.ticket) is not None:
            self._abort(live.flight)
        # The flight names its request: of the two pointing at each other, only a garbage collection would get rid.
        live.flight = None
        self._pools.touch(pool)
        self._actions.append(ended(live, fate))

    def _disembark(self, request: str, pool: Pool, now: int) -> None:
        aboard = self._executor.aboard(request)
        for part in self._executor.leave(request):
            pool.backlog.withdraw(part.work, now)
            self._ledger.forget(part.work.id)
        for ticket in aboard:
            flight = self._flights.abandoned(ticket)
            if flight is not None:
                self._abort(flight)

    def _abort(self, flight: Flight) -> None:
        flight.aborted = True
        self._actions.append(events.Abort(ticket=flight.ticket))

    def _drop(self, flight: Flight) -> None:
        # Of a batch that was stopped, because nobody waits for it.
        for part in flight.slices:
            self._fail(part)

    def _fail(self, part: Slice) -> list[str]:
        self._ledger.forget(part.work.id)
        return self._executor.fail(part)

    def _again(self, part: Slice) -> bool:
        wanted = self._executor.again(part)
        if not wanted:
            self._ledger.forget(part.work.id)
        return wanted

    # ------------------------------------------------------------ decisions

    def _settle(self, pool: Pool, now: int) -> None:
        for live in pool.overdue(now):
            fate = Fate(outcome="shed", reason="it waited too long", retry_after=self._retry_after(pool))
            self._finish(live, fate, now)
        until = self._schedule(pool, now)
        self._pools.tend(pool, now)
        if pool.hopeless(now):
            self._refuse(pool, no_engine(pool, now), now)
        pool.wake = min((at for at in (until, *self._pools.alarms(pool, now)) if at is not None), default=None)

    def _schedule(self, pool: Pool, now: int) -> int | None:
        for part in self._executor.due(pool.lane, now):
            self._queue(part.work, now)
        while True:
            decision = pool.backlog.decide(now)
            if isinstance(decision, Idle):
                spare = self._executor.spare(pool.lane, self._ledger.takes, now)
                if spare is not None:
                    self._queue(spare.work, now)
                elif decision.until is not None or not self._end_refused(pool, now):
                    return decision.until
            elif isinstance(decision, Shed):
                self._give_up(decision.work, _shed(decision), now)
            else:
                self._dispatch(pool, decision, now)

    def _end_refused(self, pool: Pool, now: int) -> bool:
        """End the oldest work where nothing runs or is to come, and the selector admits none of the engines."""
        if not pool.backlog or pool.counts["starting"] or pool.paused or not self._pools.rests(pool):
            return False
        work = pool.backlog.works()[0]
        if not self._ledger.takes(work) or self._ledger.pick(work) is not None:
            return False
        reason = "the node selector admits none of the engines that are up"
        pool.backlog.withdraw(work, now)
        self._give_up(work, Fate(outcome="unavailable", reason=reason), now)
        return True

    def _dispatch(self, pool: Pool, decision: Dispatch, now: int) -> None:
        work, place = decision.work, decision.place
        choice = self._ledger.choice(work, place)
        if work.kind == "embed":
            part = self._executor.slice(work.id)
            flight, departed = self._flights.board(work, place, now)
            for request in dict.fromkeys(request for row in part.rows for request in row.waiters):
                pool.leave(self._live[request])
            self._explain(flight, pool, decision, choice)
            self._departed(departed, now)
        else:
            live = self._live[work.id]
            flight = self._flights.launch(work, place, live, now)
            pool.leave(live)
            self._explain(flight, pool, decision, choice)
            wait = now - live.arrival
            self._actions.append(
                events.DispatchOne(ticket=flight.ticket, engine=place.engine, request=work.id, wait=wait)
            )

    def _explain(self, flight: Flight, pool: Pool, decision: Dispatch, choice: Choice) -> None:
        if not flight.open:
            # What joins an open batch goes where its first slice went.
            flight.candidates, flight.scores, flight.open = choice.places, choice.scores, choice.open
            flight.policy = "fifo" if pool.backlog.faults else pool.spec.policy or self._pools.policy
            flight.why = decision.why or choice.why

    def _departed(self, what: events.DispatchBatch | Flight | None, now: int) -> None:
        if isinstance(what, events.DispatchBatch):
            self._actions.append(what)
        elif what is not None:
            for part in what.slices:
                self._fail(part)
                pool = self._pools.get(pool_of(part.work))
                pool.backlog.observe(Finished(work=part.work, engine=what.seats.engine, ok=False), now)

    def _depart(self, now: int) -> bool:
        departed = list(self._flights.depart(now))
        for each in departed:
            engine = each.engine if isinstance(each, events.DispatchBatch) else each.seats.engine
            self._pools.touch(self._pools.by_engine[engine])
            self._departed(each, now)
        return bool(departed)

    def _land(self, event: events.Completed | events.Broke, now: int) -> Flight | None:
        flight = self._flights.land(event.ticket)
        if flight is None:
            return None
        engine = flight.seats.engine
        pool = self._pools.by_engine[engine]
        if self._ledger.resting(engine):
            pool.engines[engine].since = now
        if isinstance(event, events.Completed) and flight.seats.lane == pool.lane:
            tokens = sum([work.tokens_in + work.tokens_out for work in flight.works])
            pool.serve(flight.cost, tokens, now - flight.started, now)
        for work in flight.works:
            finished = Finished(
                work=work,
                engine=engine,
                tokens_in=(event.tokens_in if isinstance(event, events.Completed) else 0) or work.tokens_in,
                tokens_out=event.tokens_out if isinstance(event, events.Completed) else 0,
                cached=event.cached if isinstance(event, events.Completed) else 0,
                seconds=event.seconds,
                ok=isinstance(event, events.Completed),
            )
            pool.backlog.observe(finished, now)
        self._pools.touch(pool)
        return flight

    # ------------------------------------------------------------ engines that end

    def _strike(self, engine: str, reason: str, now: int, *, culprit: bool) -> None:
        # Where the culprit is known, the rest of what the engine held is above suspicion.
        pool = self._pools.by_engine.get(engine)
        if pool is None or self._ledger.remove(engine) is None:
            return
        pool.backlog.observe(EngineDown(engine=engine, lane=pool.lane), now)
        self._pools.remove(pool, engine, reason, now)
        for flight in self._flights.crash(engine):
            if not flight.aborted:
                self._actions.append(events.Abort(ticket=flight.ticket))
            for work in flight.works:
                self._retry(flight, work, reason, now, suspect=not culprit)

    def _refuse(self, pool: Pool, fate: Fate, now: int) -> None:
        """End what waits in a pool for the first time or again; what runs goes on."""
        if not (pool.line or pool.backlog or self._executor.holds(pool.lane)):
            return
        for live in [live for live in self._live.values() if live.outline.lane == pool.lane]:
            name = live.outline.id
            # One that shares the texts of another may have ended with it.
            if name in self._live and (name in pool.line or name in pool.backlog or self._executor.waits(name)):
                self._finish(live, fate, now)

    def _switch(self, pool: Pool, name: str, now: int) -> bool:
        policy = self._pools.scheduler(name)
        if policy is not None:
            for work, verdict in pool.backlog.switch(policy, now):
                self._give_up(work, rejection(verdict), now)
            self._pools.touch(pool)
        return policy is not None

    def _retry_after(self, pool: Pool) -> float:
        return pool.retry_after(self._ledger.running(pool.lane), self._executor.held(pool.lane))


def no_engine(pool: Pool, now: int) -> Fate:
    """The fate of what no engine can serve."""
    at = pool.next_candidate()
    later = None if at is None else max(0.0, (at - now) / SECOND)
    return Fate(outcome="unavailable", reason=pool.trouble or "none is configured", retry_after=later)


def rejection(verdict: Rejected) -> Fate:
    """The fate of what is not taken in."""
    return Fate(outcome="rejected", reason=verdict.reason, retry_after=verdict.retry_after)


def _shed(decision: Shed) -> Fate:
    outcome: events.Outcome = "shed"
    return Fate(outcome=outcome, reason=decision.reason, retry_after=decision.retry_after)
