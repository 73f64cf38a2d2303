"""One model's queue, engines and settings, as the manager keeps them: counts and rules, without any decision."""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Iterator
from typing import Literal

from sage_core.common.clock import SECOND
from sage_core.common.records import Lane, PoolSpec, Rejected
from sage_core.kernel.control_plane.backlog import Backlog
from sage_core.kernel.control_plane.flights import Live

#: Attempts in a row that an engine fails before it is left alone, and how long it is then (ns): doubled each time.
TRIPS_AFTER = 3
PAUSE, LONGEST_PAUSE = SECOND, 30 * SECOND
#: A request waits for an engine that may be opened again within this time (ns); else it is told when to come back.
SOON = 5 * SECOND
#: Retries are paid from a bucket that each request fills by this much, up to so many.
RETRY_SHARE, RETRIES_MOST = 0.1, 10.0
#: Time over which what a seat serves is averaged (ns).
AVERAGED = 10 * SECOND
#: Seconds told to those who are refused before any rate is known, and at most.
GUESSED_WAIT, LONGEST_WAIT = 5.0, 3_600.0


State = Literal["starting", "up", "draining"]


def backoff(times: int) -> int:
    """How long to leave alone what has failed so often in a row (ns): nothing at first, then 1 s, 2 s, … 30 s."""
    return 0 if times < 2 else min(LONGEST_PAUSE, PAUSE << min(times - 2, 10))


class Standing:
    """An engine between `StartEngine` and its end."""

    __slots__ = ("asked", "engine", "failures", "member", "paused_until", "since", "state", "trips")

    def __init__(self, engine: str, member: int, now: int) -> None:
        self.engine = engine
        self.member = member
        self.state: State = "starting"
        #: When it began to open, opened, or held nothing any more.
        self.since = now
        #: Attempts failed in a row, and how often it was left alone for that.
        self.failures = 0
        self.trips = 0
        self.paused_until: int | None = None
        #: The engine itself asked for the pause: an answer that it had begun before does not end it.
        self.asked = False

    def fail(self, now: int, pause: float) -> bool:
        """Count a failed attempt; true when the engine is to be left alone until `paused_until`."""
        self.failures += 1
        self.asked = pause > 0.0
        rest = round(pause * SECOND)
        if self.failures >= TRIPS_AFTER:
            rest = max(rest, min(LONGEST_PAUSE, PAUSE << min(self.trips, 10)))
            self.trips += 1
            # One failure is enough to trip it again.
            self.failures = TRIPS_AFTER - 1
        if rest:
            self.paused_until = now + rest
        return bool(rest)

    def succeed(self) -> None:
        """Forget what failed."""
        self.failures = self.trips = 0


class Pool:
    """A model's queue and engines.

    Args:
        spec: its settings, replaced when they change.
        backlog: its queued works, under its policy.
    """

    def __init__(self, spec: PoolSpec, backlog: Backlog) -> None:
        self.spec = spec
        self.backlog = backlog
        #: Requests that wait for their first dispatch, in order of arrival, and the bytes that they carry.
        # The first of a dict is found by a look at every place that was freed before it: 3 µs in a line of 10,000.
        self.line: OrderedDict[str, Live] = OrderedDict()
        self.bytes = 0
        #: Of these, the ones that came before any engine was up.
        self.room: dict[str, Live] = {}
        self.engines: dict[str, Standing] = {}
        #: Those among them that are left alone for a while.
        self.paused: dict[str, Standing] = {}
        #: Engines in each state, counted as they change: a pool of many engines is looked at for each request.
        self.counts: dict[State, int] = {"starting": 0, "up": 0, "draining": 0}
        #: When the manager has to look again though nothing happens.
        self.wake: int | None = None
        #: Why the last engine could not be opened or was lost.
        self.trouble = ""
        self._failed: dict[int, int] = {}
        self._not_before: dict[int, int] = {}
        self._budget = RETRIES_MOST
        #: Engine-seconds and tokens that were served of late, and the time that they took in their seats (ns).
        self._served = self._read = self._seated = 0.0
        self._served_at = 0

    @property
    def lane(self) -> Lane:
        """Key of the pool."""
        return self.spec.lane

    # ------------------------------------------------------------ who waits

    def refusal(self, size: int) -> Rejected | None:
        """Say why a request of so many bytes is not taken in, or None."""
        limits = self.spec.queue
        if limits.requests and len(self.line) >= limits.requests:
            return self._full(f"{len(self.line)} requests wait")
        if limits.bytes and self.line and self.bytes + size > limits.bytes:
            return self._full(f"{self.bytes} bytes wait")
        return None

    def enter(self, live: Live) -> None:
        """Put a request at the end of the line."""
        self.line[live.outline.id] = live
        self.bytes += sum(live.outline.sizes)
        self._budget = min(RETRIES_MOST, self._budget + RETRY_SHARE)

    def leave(self, live: Live) -> None:
        """Take a request out of the line: it is dispatched, or over."""
        if self.line.pop(live.outline.id, None) is not None:
            self.bytes -= sum(live.outline.sizes)
        self.room.pop(live.outline.id, None)

    def overdue(self, now: int) -> Iterator[Live]:
        """Requests that have waited longer than they may, oldest first."""
        limit = self.spec.queue.wait
        if limit is not None:
            # A snapshot is not needed: whoever takes one out of the line asks for the next.
            while self.line and (live := next(iter(self.line.values()))).arrival + limit <= now:
                yield live

    def may_retry(self) -> bool:
        """Pay for one more attempt at a request; false when the budget is spent."""
        if self._budget < 1.0:
            return False
        self._budget -= 1.0
        return True

    # ------------------------------------------------------------ how fast it drains

    def serve(self, cost: float, tokens: int, took: int, now: int) -> None:
        """Count a finished dispatch: the engine-seconds and tokens it was taken for, and its time in a seat (ns)."""
        faded = math.exp(-(now - self._served_at) / AVERAGED)
        self._served = self._served * faded + cost
        self._read = self._read * faded + tokens
        self._seated = self._seated * faded + took
        self._served_at = now

    def drain(self, running: int) -> float:
        """Engine-seconds finished each second while so many dispatches run; 0 before anything is known.

        What a seat has served, times the seats in use: in a burst's first seconds hardly anything has ended, and the
        rate at which works end says nothing yet.
        """
        return running * self._served * SECOND / self._seated if self._seated else 0.0

    def retry_after(self, running: int, held: int = 0) -> float:
        """Seconds until what waits, and tokens `held` back beside it, will have been served, rounded up.

        By tokens, because costs were estimated when works came: in a burst, before most of what is known was learnt.
        """
        rate = running * self._read
        if rate <= 0.0:
            return GUESSED_WAIT
        return float(min(LONGEST_WAIT, max(1, math.ceil((self.backlog.tokens + held) * self._seated / SECOND / rate))))

    # ------------------------------------------------------------ engines

    @property
    def alive(self) -> int:
        """Engines that are up or will be."""
        return self.counts["starting"] + self.counts["up"]

    def enlist(self, standing: Standing) -> None:
        """Take in an engine that is being opened."""
        self.engines[standing.engine] = standing
        self.counts[standing.state] += 1

    def turn(self, standing: Standing, state: State) -> None:
        """Change an engine's state."""
        self.counts[standing.state] -= 1
        self.counts[state] += 1
        standing.state = state

    def dismiss(self, engine: str) -> None:
        """Drop what is kept about an engine."""
        self.counts[self.engines.pop(engine).state] -= 1
        self.paused.pop(engine, None)

    def candidate(self, now: int) -> int | None:
        """The first member that may be opened at once."""
        taken = {*self.spec.closed, *(each.member for each in self.engines.values())}
        for member in range(self.spec.members):
            if member not in taken and self._not_before.get(member, 0) <= now:
                return member
        return None

    def next_candidate(self) -> int | None:
        """When the first of the members that must be left alone may be opened."""
        taken = {*self.spec.closed, *(each.member for each in self.engines.values())}
        return min(
            (at for member, at in self._not_before.items() if member not in taken and member < self.spec.members),
            default=None,
        )

    def hopeful(self, now: int) -> bool:
        """Whether an engine is being opened, or may be soon: then a request can wait for it."""
        at = self.next_candidate()
        soon = at is not None and at <= now + SOON
        return soon or self.counts["starting"] > 0 or self.candidate(now) is not None

    def hopeless(self, now: int) -> bool:
        """Whether no engine is up or can ever be opened."""
        return not self.alive and self.candidate(now) is None and self.next_candidate() is None

    def stumbled(self, member: int, reason: str, now: int) -> None:
        """Count an engine that could not be opened, or broke down."""
        times = self._failed[member] = self._failed.get(member, 0) + 1
        self._not_before[member] = now + backoff(times)
        self.trouble = reason

    def recovered(self, member: int) -> None:
        """Forget what went wrong with a member that has served."""
        self._failed.pop(member, None)
        self._not_before.pop(member, None)

    def _full(self, what: str) -> Rejected:
        return Rejected(reason=f"the queue of model {self.spec.model!r} is full: {what}")
