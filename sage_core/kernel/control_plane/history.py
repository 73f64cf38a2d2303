"""What can be told about a request: while it is live, and for a while after it has ended."""

from __future__ import annotations

from typing import Literal

from sage_core.common.records import Kind, Lane, Record
from sage_core.kernel.control_plane.events import Decided
from sage_core.kernel.control_plane.flights import Live

#: Requests that have ended and are remembered, and lines kept of each: those of a large embed request are many.
REMEMBERED, LINES = 1_024, 16


class Description(Record):
    """A request as it stands."""

    request: str
    #: ``waiting``: for an engine to open; ``embedding``: some of its texts are in an engine, or have been.
    state: Literal["waiting", "queued", "dispatched", "streaming", "embedding", "ended"]
    model: str
    lane: Lane
    kind: Kind
    tenant: str
    service_class: str
    #: Nanoseconds since it arrived; of one that has ended, until then.
    age: int
    #: Requests of its pool that arrived before it and wait.
    ahead: int = 0
    #: Estimated when it was classified.
    tokens_in: int = 0
    tokens_out: int = 0
    priority: int = 0
    #: Nanoseconds from arrival to its deadline, and between tokens.
    deadline: int | None = None
    tpot: int | None = None
    engine: str = ""
    #: Attempts that engines failed.
    attempts: int = 0
    #: Its lines of the decision log, the latest ones.
    decisions: tuple[Decided, ...] = ()


class History:
    """The latest lines of the latest requests."""

    def __init__(self) -> None:
        self._lines: dict[str, list[Decided]] = {}

    def add(self, line: Decided) -> None:
        """Keep a line."""
        lines = self._lines.setdefault(line.request, [])
        lines.append(line)
        if len(lines) > LINES:
            del lines[0]
        if len(self._lines) > REMEMBERED:
            del self._lines[next(iter(self._lines))]

    def past(self, request: str) -> Description | None:
        """A request that has ended, or None for one that is not known any more."""
        lines = self._lines.get(request)
        if not lines:
            return None
        last = lines[-1]
        return Description(
            request=request,
            state="ended",
            model=last.model,
            lane=last.lane,
            kind=last.kind,
            tenant=last.tenant,
            service_class=last.service_class,
            age=last.total,
            tokens_in=last.tokens_in,
            tokens_out=last.tokens_out,
            priority=last.priority,
            deadline=last.deadline,
            tpot=last.tpot,
            engine=last.engine,
            attempts=last.attempts,
            decisions=tuple(lines),
        )

    def live(self, live: Live, now: int, *, ahead: int | None, room: bool) -> Description:
        """A request that is live.

        Args:
            ahead: how many of those that wait arrived before it; None when it does not wait for its first dispatch.
            room: whether it waits for an engine to open.
        """
        outline, work, flight = live.outline, live.work, live.flight
        state: Literal["waiting", "queued", "dispatched", "streaming", "embedding"]
        if ahead is not None:
            state = "waiting" if room else "queued"
        elif outline.kind == "embed":
            state = "embedding"
        elif flight is None or flight.landed:
            state = "queued"
        else:
            state = "streaming" if flight.streamed else "dispatched"
        return Description(
            request=outline.id,
            state=state,
            model=outline.model,
            lane=outline.lane,
            kind=outline.asked or outline.kind,
            tenant=outline.caller.tenant,
            service_class=outline.caller.service_class,
            age=now - live.arrival,
            ahead=ahead or 0,
            tokens_in=work.tokens_in if work else 0,
            tokens_out=work.tokens_out if work else 0,
            priority=work.priority if work else outline.caller.priority,
            deadline=work.deadline - live.arrival if work and work.deadline is not None else None,
            tpot=work.tpot if work else None,
            engine=flight.seats.engine if flight else "",
            attempts=live.attempts,
            decisions=tuple(self._lines.get(outline.id, ())),
        )
