"""The ledger of credits: what every engine holds, moved only by the manager's own events; policies see a Fleet."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from typing import Protocol

import msgspec

from sage_core.common.records import Candidate, Capacity, EngineInfo, Lane, Needs, Place, Work
from sage_core.common.telemetry import log
from sage_core.kernel.control_plane.embedding_executor import EmbeddingExecutor, OpenBatch
from sage_core.kernel.control_plane.request_classifier import tokenizing

#: Tokenize calls an engine takes at a time, beside its seats.
TOKENIZE_SEATS = 2
#: Engine-seconds per input and per output token before anything is measured.
SECONDS_IN, SECONDS_OUT = 1e-4, 2e-2
#: Tokens that this first guess counts for, and tokens after which what was measured begins to fade.
GUESSED, REMEMBERED = 256, 16_384
#: Predicted engine-seconds of a batch at most, so that a query behind it waits no longer; and the tokens that it may
#: hold however slow the engine is: below them an engine's cost per call begins to show.
BATCH_SECONDS, BATCH_LEAST = 0.25, 256

_NOTHING_NEEDED = Needs()


class Selects(Protocol):
    """A composed node selector."""

    def pick(self, work: Work, needs: Needs, candidates: Sequence[Candidate]) -> Candidate | None:
        """Return one of the candidates, or None where none is admitted."""


class Seats:
    """Credits of one engine in one lane."""

    __slots__ = ("batch", "engine", "lane", "limit", "load", "running")

    def __init__(self, engine: str, lane: Lane, limit: int) -> None:
        self.engine = engine
        self.lane = lane
        self.limit = limit
        #: Dispatches in the engine, an open batch included.
        self.running = 0
        #: Predicted engine-seconds of what it holds.
        self.load = 0.0
        #: The batch that still takes rows; it has taken its seat already.
        self.batch: OpenBatch | None = None


class Member:
    """One ready engine."""

    __slots__ = ("info", "lane", "main", "tokenize")

    def __init__(self, info: EngineInfo, lane: Lane) -> None:
        self.info = info
        self.lane = lane
        self.main = Seats(info.id, lane, max(1, info.capacity.sequences))
        self.tokenize = Seats(info.id, tokenizing(lane), TOKENIZE_SEATS)


class Rate:
    """Engine-seconds per token, by the tokens and seconds of late: short texts, whose time is mostly the call's own,
    weigh as little as they cost."""

    __slots__ = ("_seconds", "_tokens")

    def __init__(self, guess: float) -> None:
        self._seconds, self._tokens = guess * GUESSED, float(GUESSED)

    @property
    def per_token(self) -> float:
        """The mean."""
        return self._seconds / self._tokens

    def add(self, tokens: int, seconds: float) -> None:
        """Take one dispatch in."""
        total = self._tokens + tokens
        kept = min(1.0, REMEMBERED / total)
        self._seconds = kept * (self._seconds + seconds)
        self._tokens = kept * total


class Ledger:
    """Implements `Fleet` over the engines that are up."""

    def __init__(self, executor: EmbeddingExecutor, selector: Selects | None = None) -> None:
        #: What was wrong with the configured selector, once the least loaded engine is taken instead.
        self.faults: list[str] = []
        self._executor = executor
        self._selector = selector
        self._members: dict[str, Member] = {}
        self._lanes: dict[Lane, dict[str, Seats]] = {}
        #: Seats by lane that may take something: the index behind `room` and `open`.
        self._free: dict[Lane, dict[str, Seats]] = {}
        self._rates: dict[tuple[str, str], Rate] = {}

    # ------------------------------------------------------------ what policies see

    def room(self, lane: Lane) -> bool:
        return bool(self._free.get(lane))

    def open(self, work: Work) -> Iterable[Place]:
        for seats in self._free.get(work.lane, {}).values():
            place = self.place(work, seats)
            if place is not None:
                yield place

    def pick(self, work: Work, places: Iterable[Place] | None = None) -> Place | None:
        found = list(self.open(work) if places is None else places)
        if not found:
            return None
        if self._selector is not None:
            candidates = [
                Candidate(id=place.engine, running=place.running, load=place.load, place=place) for place in found
            ]
            try:
                chosen = self._selector.pick(work, _NOTHING_NEEDED, candidates)
            except Exception as error:  # noqa: BLE001 - a selector may fail in any way; no request is lost by that
                self._give_up_selector(f"{type(error).__name__}: {error}")
            else:
                return None if chosen is None else chosen.place
        return min(found, key=lambda place: (place.load, place.running))

    def cost(self, work: Work, place: Place | None = None) -> float:
        engine = place.engine if place is not None else next(iter(self._lanes.get(work.lane, {})), "")
        rate = self._rates.get((engine, work.kind))
        if work.kind == "generate":
            return work.tokens_in * SECONDS_IN + work.tokens_out * (rate.per_token if rate else SECONDS_OUT)
        return work.tokens_in * (rate.per_token if rate else SECONDS_IN)

    # ------------------------------------------------------------ what the manager does

    def place(self, work: Work, seats: Seats) -> Place | None:
        """What this engine offers the work: its open batch where that has room, else a free seat, else nothing."""
        batch = seats.batch
        if batch is not None and work.kind == "embed":
            room = self._executor.room(batch, work.id)
            if room:
                return Place(
                    engine=seats.engine, running=seats.running, load=seats.load, batch=batch.ticket, room_tokens=room
                )
        # One open batch at a time: a second one beside it would take rows that the first could carry.
        if seats.running >= seats.limit or (batch is not None and work.kind == "embed"):
            return None
        return Place(engine=seats.engine, running=seats.running, load=seats.load)

    def seats(self, engine: str, lane: Lane) -> Seats | None:
        """The engine's credits in a lane, or None when it does not serve it."""
        return self._lanes.get(lane, {}).get(engine)

    def capacity(self, lane: Lane) -> Capacity | None:
        """What a slice is cut to: the budget of a batch on the lane's first engine; None without one."""
        return next(map(self.budget, self._lanes.get(lane, {})), None)

    def budget(self, engine: str) -> Capacity:
        """The engine's capacity, with no more tokens in a batch than it computes in `BATCH_SECONDS`."""
        capacity = self._members[engine].info.capacity
        rate = self._rates.get((engine, "embed"))
        tokens = max(BATCH_LEAST, int(BATCH_SECONDS / (rate.per_token if rate else SECONDS_IN)))
        return msgspec.structs.replace(capacity, batch_tokens=min(capacity.batch_tokens, tokens))

    @property
    def taken(self) -> int:
        """Credits that are not back."""
        return sum(seats.running for pool in self._lanes.values() for seats in pool.values())

    def add(self, info: EngineInfo, lane: Lane) -> None:
        """Take an engine in."""
        member = self._members[info.id] = Member(info, lane)
        for seats in (member.main, member.tokenize):
            self._lanes.setdefault(seats.lane, {})[info.id] = seats
            self.refresh(seats)

    def remove(self, engine: str) -> Member | None:
        """Strike an engine off, with whatever it held."""
        member = self._members.pop(engine, None)
        if member is not None:
            for seats in (member.main, member.tokenize):
                self._lanes[seats.lane].pop(engine, None)
                self._free.get(seats.lane, {}).pop(engine, None)
            self._rates = {key: rate for key, rate in self._rates.items() if key[0] != engine}
        return member

    def take(self, seats: Seats, cost: float) -> None:
        """Move one credit to a dispatch."""
        seats.running += 1
        seats.load += cost
        self.refresh(seats)

    def give(self, seats: Seats, cost: float) -> None:
        """Return one credit."""
        seats.running -= 1
        seats.load = max(0.0, seats.load - cost) if seats.running else 0.0
        self.refresh(seats)

    def refresh(self, seats: Seats) -> None:
        """Bring the index up to date after a credit moved or a batch opened, filled or closed."""
        free = self._free.setdefault(seats.lane, {})
        if seats.running < seats.limit or seats.batch is not None:
            free[seats.engine] = seats
        else:
            free.pop(seats.engine, None)

    def learn(self, work: Work, engine: str, tokens: int, seconds: float) -> None:
        """Update the engine's rate from one finished dispatch: of tokens written, or of tokens read."""
        if tokens > 0:
            guess = SECONDS_OUT if work.kind == "generate" else SECONDS_IN
            self._rates.setdefault((engine, work.kind), Rate(guess)).add(tokens, seconds)

    def _give_up_selector(self, problem: str) -> None:
        self._selector = None
        self.faults.append(problem)
        log("selector_replaced", level=logging.ERROR, problem=problem, by="the least loaded")
