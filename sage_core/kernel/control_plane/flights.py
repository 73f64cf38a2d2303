"""What the manager remembers of a request and of a dispatch, and the lines it writes about them."""

from __future__ import annotations

from sage_core.common.records import Work
from sage_core.kernel.control_plane.embedding_executor import Slice
from sage_core.kernel.control_plane.events import Decided, End, Outcome, Outline
from sage_core.kernel.control_plane.fleet import Seats


class Live:
    """A request between `Submitted` and `End`."""

    __slots__ = ("arrival", "attempts", "flight", "outline", "ticket", "work")

    def __init__(self, outline: Outline, now: int) -> None:
        self.outline = outline
        self.arrival = now
        self.attempts = 0
        #: Its work, dispatch and ticket when it is not an embed request, whose slices keep their own.
        self.work: Work | None = None
        self.flight: Flight | None = None
        self.ticket = 0


class Flight:
    """A dispatch between taking its credit and giving it back."""

    __slots__ = ("aborted", "live", "predicted", "seats", "slices", "started", "streamed", "ticket", "tokens", "works")

    def __init__(self, ticket: int, seats: Seats, now: int, predicted: float, live: Live | None) -> None:
        self.ticket = ticket
        self.seats = seats
        self.started = now
        self.predicted = predicted
        #: The one request of a dispatch that is no batch.
        self.live = live
        self.works: list[Work] = []
        self.slices: list[Slice] = []
        self.tokens = 0
        self.streamed = False
        self.aborted = False


def decided(
    live: Live, flight: Flight | None, outcome: Outcome, *, now: int = 0, rows: int | None = None,
    tokens: int | None = None, actual: float = 0.0, reason: str = "",
) -> Decided:  # fmt: skip
    """Write the line of a request's part in a dispatch, or of its end without one."""
    outline, caller = live.outline, live.outline.caller
    flight = flight or live.flight
    if tokens is None:
        tokens = live.work.tokens_in + live.work.tokens_out if live.work is not None else 0
    return Decided(
        request=outline.id,
        kind=outline.kind,
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
        actual=actual,
        outcome=outcome,
        reason=reason,
    )


def ended(
    live: Live, outcome: Outcome, *, ticket: int = 0, engine: str = "", reason: str = "",
    retry_after: float | None = None,
) -> End:  # fmt: skip
    """Say that a request is over."""
    return End(
        request=live.outline.id, outcome=outcome, ticket=ticket, engine=engine, reason=reason, retry_after=retry_after
    )
