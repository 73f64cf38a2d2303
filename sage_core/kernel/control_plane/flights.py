"""Dispatches between taking their credit and giving it back, and the lines that are written about them."""

from __future__ import annotations

import heapq
from collections.abc import Iterator

from sage_core.common.clock import SECOND
from sage_core.common.records import Place, Record, Work
from sage_core.kernel.control_plane.embedding_executor import LINGER, EmbeddingExecutor, OpenBatch, Slice
from sage_core.kernel.control_plane.events import Decided, DispatchBatch, End, Outcome, Outline
from sage_core.kernel.control_plane.fleet import Ledger
from sage_core.kernel.control_plane.seats import Seats
from sage_core.kernel.control_plane.step_time import Observed


class Live:
    """A request between `Submitted` and `End`."""

    __slots__ = ("arrival", "attempts", "flight", "losses", "outline", "work")

    def __init__(self, outline: Outline, now: int) -> None:
        self.outline = outline
        self.arrival = now
        #: As it was classified; then its latest dispatch and lost engines, where it is no embed request, whose slices
        #: keep their own.
        self.work: Work | None = None
        self.flight: Flight | None = None
        self.losses = 0
        #: Attempts that an engine failed without being lost.
        self.attempts = 0


class Flight:
    """A dispatch between taking its credit and giving it back."""

    __slots__ = (
        "aborted",
        "candidates",
        "cost",
        "first",
        "landed",
        "live",
        "met",
        "open",
        "policy",
        "predicted",
        "predicted_ttft",
        "read",
        "scores",
        "seats",
        "slices",
        "started",
        "streamed",
        "ticket",
        "tokens",
        "why",
        "works",
    )

    def __init__(self, ticket: int, seats: Seats, now: int, cost: float, live: Live | None) -> None:
        self.ticket = ticket
        self.seats = seats
        self.started = now
        #: Engine-seconds that it is charged, and seconds it is expected to take.
        self.cost = self.predicted = cost
        #: The one request of a dispatch that is no batch.
        self.live = live
        self.works: list[Work] = []
        self.slices: list[Slice] = []
        self.tokens = 0
        self.streamed = False
        #: The tokens of its prompt are given back.
        self.read = False
        self.aborted = False
        #: Its credit is back.
        self.landed = False
        #: Seconds to its first token: predicted, and observed.
        self.predicted_ttft = 0.0
        self.first = 0.0
        #: What was in the engine when it was sent.
        self.met: Observed | None = None
        #: What was open when it was decided, how many in all, with the selector's scores; which policy, and its remark.
        self.candidates: tuple[Place, ...] = ()
        self.open = 0
        self.scores: tuple[float, ...] = ()
        self.policy = ""
        self.why = ""


class Flights:
    """Every dispatch in an engine or in an open batch; the only one who moves credits."""

    def __init__(self, ledger: Ledger, executor: EmbeddingExecutor) -> None:
        self._ledger = ledger
        self._executor = executor
        self._flying: dict[int, Flight] = {}
        self._open: dict[int, tuple[OpenBatch, Seats]] = {}
        #: When prompts whose first token nobody may see are taken as read, and the tickets of their dispatches.
        self._reading: list[tuple[int, int]] = []
        self._ticket = 0

    def __len__(self) -> int:
        return len(self._flying)

    def get(self, ticket: int) -> Flight | None:
        """The dispatch with this ticket, or None when it has ended."""
        return self._flying.get(ticket)

    def objection(self, work: Work, place: Place) -> str:
        """What is wrong with sending a queued work there, or nothing."""
        seats = self._ledger.seats(place.engine, work.lane)
        if seats is None:
            return f"dispatch of {work.id!r} to {place.engine!r}, which does not serve lane {work.lane!r}"
        allowed = self._ledger.place(work, seats)
        if allowed is None or allowed.batch != place.batch:
            return f"dispatch of {work.id!r} to {place.engine!r}, which has no room for it"
        return ""

    def abandoned(self, ticket: int) -> Flight | None:
        """The dispatched batch of this ticket when nobody waits for any text of it any more, or None."""
        flight = self._flying.get(ticket)
        if flight is None or flight.aborted or ticket in self._open:
            return None
        return None if any(row.waiters for part in flight.slices for row in part.rows) else flight

    def launch(self, work: Work, place: Place, live: Live, now: int) -> Flight:
        """Take a seat for a request that is no batch."""
        ledger, first, predicted, met = self._ledger, 0.0, 0.0, None
        if work.kind == "generate":
            # Before its credit moves, and its prompt counts as known there.
            first = ledger.ttft(work, place)
            predicted = first + work.tokens_out * ledger.tpot(work, place)
            met = ledger.meets(work, self._seats(work, place).place)
        flight = live.flight = self._take(work, place, now, live)
        flight.works.append(work)
        flight.tokens = work.tokens_in
        flight.predicted_ttft, flight.predicted, flight.met = first, predicted or flight.cost, met
        if live.outline.whole:
            heapq.heappush(self._reading, (now + round(first * SECOND), flight.ticket))
        return flight

    def stream(self, flight: Flight, seconds: float) -> None:
        """Note a dispatch's first token, which has come after so long; 0 where nobody saw it."""
        self._unload(flight)
        flight.streamed = True
        flight.first = seconds
        if seconds:
            self._ledger.first(flight.seats, flight.works[0], flight.met, seconds)

    def read(self, now: int) -> Iterator[Flight]:
        """Give back the prompts that are taken as read by now, and yield their dispatches."""
        while self._reading and self._reading[0][0] <= now:
            flight = self._flying.get(heapq.heappop(self._reading)[1])
            if flight is not None and not flight.read:
                self._unload(flight)
                yield flight

    def _unload(self, flight: Flight) -> None:
        if not flight.read:
            flight.read = True
            self._ledger.unload(flight.seats, flight.works[0])

    def board(self, work: Work, place: Place, now: int) -> tuple[Flight, DispatchBatch | Flight | None]:
        """Put a slice into the engine's open batch, or into one that takes a seat for it; closes a batch it fills."""
        seats = self._seats(work, place)
        if seats.batch is None:
            flight = self._take(work, place, now, None)
            seats.batch = OpenBatch(flight.ticket, seats.engine, self._ledger.budget(seats.engine), now + LINGER)
            self._open[flight.ticket] = (seats.batch, seats)
            self._ledger.refresh(seats)
        else:
            flight = self._flying[seats.batch.ticket]
            cost = self._ledger.cost(work, place)
            flight.cost += cost
            flight.predicted += cost
            seats.load += cost
        part = self._executor.slice(work.id)
        self._executor.join(seats.batch, part)
        flight.works.append(work)
        flight.slices.append(part)
        if work.deadline is not None:
            seats.batch.closes_at = min(seats.batch.closes_at, now + max(0, work.deadline - now) // 4)
        return flight, self._close(seats.batch, seats, now) if seats.batch.full else None

    def land(self, ticket: int) -> Flight | None:
        """Give a dispatch's credit back; None for one that is not known, whose engine was lost."""
        flight = self._flying.pop(ticket, None)
        if flight is not None:
            flight.landed = True
            self._ledger.give(flight.seats, flight.cost, flight.works[0], read=flight.read)
        return flight

    def crash(self, engine: str) -> list[Flight]:
        """Forget what a lost engine held, and return it; its credits went with it."""
        lost = [flight for flight in self._flying.values() if flight.seats.engine == engine]
        for flight in lost:
            del self._flying[flight.ticket]
            flight.landed = True
            self._open.pop(flight.ticket, None)
        return lost

    def depart(self, now: int) -> Iterator[DispatchBatch | Flight]:
        """Close the batches that are due; yields each as an action, or as a flight that nobody wants any more."""
        for batch, seats in list(self._open.values()):
            # An engine that holds nothing else gains nothing by waiting.
            if seats.running == 1 or batch.full or now >= batch.closes_at:
                yield self._close(batch, seats, now)

    def wake(self) -> Iterator[int]:
        """When the open batches close, and the next prompt is taken as read."""
        if self._reading:
            yield self._reading[0][0]
        for batch, _ in self._open.values():
            yield batch.closes_at

    def _seats(self, work: Work, place: Place) -> Seats:
        seats = self._ledger.seats(place.engine, work.lane)
        assert seats is not None
        return seats

    def _take(self, work: Work, place: Place, now: int, live: Live | None) -> Flight:
        seats = self._seats(work, place)
        cost = self._ledger.cost(work, place)
        self._ticket += 1
        flight = self._flying[self._ticket] = Flight(self._ticket, seats, now, cost, live)
        self._ledger.take(seats, cost, work)
        return flight

    def _close(self, batch: OpenBatch, seats: Seats, now: int) -> DispatchBatch | Flight:
        del self._open[batch.ticket]
        seats.batch = None
        flight = self._flying[batch.ticket]
        flight.started = now
        rows = self._executor.close(batch)
        if not rows:
            self.land(batch.ticket)
            return flight
        # What it costs is what it computes, padding included; nothing is computed for those who have left.
        flight.tokens = len(rows) * rows[-1].tokens
        self._ledger.refresh(seats)
        where = tuple((request, places[0]) for request, places in (next(iter(row.waiters.items())) for row in rows))
        return DispatchBatch(ticket=batch.ticket, engine=seats.engine, rows=where)


class Fate(Record):
    """Why and where a request ended before its answer, or what its part in a dispatch came to."""

    outcome: Outcome
    reason: str = ""
    #: The dispatch that answered or failed it.
    flight: Flight | None = None
    #: Engine-seconds of that dispatch.
    actual: float = 0.0
    #: The engine that could not be opened or was lost, where that is the cause.
    engine: str = ""
    retry_after: float | None = None
    #: What the engine counted, or 0.
    tokens_in: int = 0
    tokens_out: int = 0
    cached: int = 0


def decided(live: Live, fate: Fate, now: int, *, rows: int | None = None, tokens: int | None = None) -> Decided:
    """Write the line of a request's part in a dispatch, or of its end without one."""
    outline, caller, work = live.outline, live.outline.caller, live.work
    flight = fate.flight or live.flight
    if tokens is None:
        tokens = fate.tokens_in + fate.tokens_out or (work.tokens_in + work.tokens_out if work is not None else 0)
    return Decided(
        request=outline.id,
        kind=outline.asked or outline.kind,
        model=outline.model,
        lane=outline.lane,
        tenant=caller.tenant,
        service_class=caller.service_class,
        run=caller.run,
        step=caller.step,
        worker=caller.worker,
        rows=len(outline.sizes) if rows is None else rows,
        tokens=tokens,
        # A text that joins a batch in flight arrives after the dispatch: it has not waited.
        wait=max(0, (flight.started if flight else now) - live.arrival),
        engine=flight.seats.engine if flight else "",
        batch=flight.ticket if flight else 0,
        predicted=flight.predicted if flight else 0.0,
        actual=fate.actual,
        cost=flight.cost if flight else 0.0,
        total=now - live.arrival,
        outcome=fate.outcome,
        reason=fate.reason,
        tokens_in=work.tokens_in if work else 0,
        tokens_out=work.tokens_out if work else 0,
        counted_in=fate.tokens_in,
        counted_out=fate.tokens_out,
        cached=fate.cached,
        priority=work.priority if work else caller.priority,
        deadline=work.deadline - live.arrival if work and work.deadline is not None else None,
        tpot=work.tpot if work else None,
        predicted_ttft=flight.predicted_ttft if flight else 0.0,
        ttft=flight.first if flight else 0.0,
        candidates=flight.candidates if flight else (),
        open=flight.open if flight else 0,
        scores=flight.scores if flight else (),
        policy=flight.policy if flight else "",
        why=flight.why if flight else "",
        attempts=live.attempts,
    )


def ended(live: Live, fate: Fate) -> End:
    """Say that a request is over."""
    return End(
        request=live.outline.id,
        outcome=fate.outcome,
        ticket=fate.flight.ticket if fate.flight else 0,
        engine=fate.engine,
        reason=fate.reason,
        retry_after=fate.retry_after,
    )
