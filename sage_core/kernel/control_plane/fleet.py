"""The ledger of credits: what every engine holds, moved only by the manager's own events; policies see a Fleet."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Protocol

import msgspec

from sage_core.common.records import Candidate, Capacity, EngineInfo, Lane, Needs, Place, Work
from sage_core.common.telemetry import log
from sage_core.kernel.control_plane.choices import Choice, chosen_from
from sage_core.kernel.control_plane.embedding_executor import EmbeddingExecutor
from sage_core.kernel.control_plane.events import BLOCK
from sage_core.kernel.control_plane.seats import Member, Prefixes, Rate, Seats
from sage_core.kernel.control_plane.step_time import Observed, StepTime, prompts_per_step

#: Engine-seconds per token that is read and not written on, before anything is measured.
SECONDS_IN = 1e-4
#: Predicted engine-seconds of a batch at most, so that a query behind it waits no longer; and the tokens that it may
#: hold however slow the engine is: below them an engine's cost per call begins to show.
BATCH_SECONDS, BATCH_LEAST = 0.25, 256

#: Tokens that one of these blocks is taken for.
BLOCK_TOKENS = BLOCK // 4

_NOTHING_NEEDED = Needs()
#: Before any engine is up; nothing is learnt into it.
_UNKNOWN = StepTime()


class Selects(Protocol):
    """A composed node selector."""

    def pick(self, work: Work, needs: Needs, candidates: Sequence[Candidate]) -> Candidate | None:
        """Return one of the candidates, or None where none is admitted."""


class Ledger:
    """Implements `Fleet` over the engines that are up."""

    def __init__(self, executor: EmbeddingExecutor, selector: Selects | None = None) -> None:
        #: What was wrong with the configured selector, once the least loaded engine is taken instead.
        self.faults: list[str] = []
        self._executor = executor
        self._selector = selector
        self._members: dict[str, Member] = {}
        self._lanes: dict[Lane, dict[str, Seats]] = {}
        #: The engine of each lane by which costs are told.
        self._references: dict[Lane, str] = {}
        #: Seats by lane that may take something: the index behind `room` and `open`.
        self._free: dict[Lane, dict[str, Seats]] = {}
        #: Dispatches in each lane.
        self._running: dict[Lane, int] = {}
        #: The largest prompt and the most tokens in all that some of them have room for; told anew after each change.
        self._bounds: dict[Lane, tuple[int, int]] = {}
        #: How long engines take: those that write, by step; all else by engine and kind.
        self._steps: dict[str, StepTime] = {}
        self._rates: dict[tuple[str, str], Rate] = {}
        #: What the latest engine of the same weights in a lane had learnt: where the next one begins.
        self._known: dict[tuple[Lane, str], StepTime] = {}
        #: Work id → engines that failed it, which are taken only where no other one is up.
        self._avoid: dict[str, tuple[str, ...]] = {}
        self._seen: dict[str, Prefixes] = {}
        #: The work that `pick` was asked about the last time, what it chose from, and the selector's scores.
        self._considered: tuple[str, list[Candidate]] = "", []
        self._scores: Mapping[str, float] = {}
        self.drains: Callable[[Lane], float] = lambda lane: 0.0

    # ------------------------------------------------------------ what policies see

    def room(self, lane: Lane) -> bool:
        return bool(self._free.get(lane))

    def open(self, work: Work) -> Iterable[Place]:
        if work.kind == "embed" or work.id in self._avoid:
            free = self._free.get(work.lane, {}).values()
            return [place for seats in free if (place := self.place(work, seats)) is not None]
        return [seats.place for seats in self._fitting(work)]

    def _fitting(self, work: Work) -> Sequence[Seats]:
        free = self._free.get(work.lane, {}).values()
        prompt, whole = work.tokens_in, work.tokens_in + work.tokens_out
        # Where engines are many, most of a decision's time is spent looking at them: what fits nowhere is told at once.
        if work.lane not in self._bounds:
            self._bounds[work.lane] = _bounds(free)
        most, most_whole = self._bounds[work.lane]
        if prompt > most or whole > most_whole:
            return ()
        return [seats for seats in free if prompt <= seats.prompt_room and whole <= seats.context_room]

    def pick(self, work: Work, places: Iterable[Place] | None = None) -> Place | None:
        found = self._candidates(work, places)
        self._considered = work.id, found
        self._scores = {}
        if not found:
            return None
        if self._selector is not None:
            try:
                chosen = self._selector.pick(work, _NOTHING_NEEDED, found)
            except Exception as error:  # noqa: BLE001 - a selector may fail in any way; no request is lost by that
                self._give_up_selector(f"{type(error).__name__}: {error}")
            else:
                self._scores = getattr(self._selector, "scores", {})
                return None if chosen is None else chosen.place
        return min(found, key=lambda each: (each.load, each.running)).place

    def _candidates(self, work: Work, places: Iterable[Place] | None) -> list[Candidate]:
        """Places as selectors see them; what an engine knows of a prompt is dear to find out for each."""
        prefix = work.prefix if self._selector is not None and getattr(self._selector, "local", True) else ()
        if places is None and not prefix and work.kind != "embed" and work.id not in self._avoid:
            return [seats.candidate for seats in self._fitting(work)]
        pool, seen = self._lanes.get(work.lane, {}), self._seen
        found = []
        for place in self.open(work) if places is None else places:
            engine = place.engine
            blocks = seen[engine].blocks(prefix) if prefix and engine in seen else 0
            # One that was made for an earlier work serves this one as well.
            each = None if blocks else pool[engine].candidate
            if each is None or each.place is not place:
                local = min(1.0, blocks * BLOCK_TOKENS / max(1, work.tokens_in))
                each = Candidate(id=engine, running=place.running, load=place.load, place=place, local=local)
            found.append(each)
        return found

    def cost(self, work: Work, place: Place | None = None) -> float:
        engine = place.engine if place is not None else self._references.get(work.lane, "")
        if work.kind == "generate":
            cached = self.cached(work, place) if place is not None else 0
            return self._step_time(engine).share(work.tokens_in - cached, work.tokens_out)
        rate = self._rates.get((engine, work.kind))
        # Of texts that are computed together, the longest decides what each of them costs.
        tokens = (self._executor.padded(work.id) if work.kind == "embed" else 0) or work.tokens_in
        return tokens * (rate.per_token if rate else SECONDS_IN)

    def ttft(self, work: Work, place: Place) -> float:
        ahead = place.prefill + work.tokens_in - self.cached(work, place)
        return self._step_time(place.engine).read(ahead, place.context, place.running + 1)

    def tpot(self, work: Work, place: Place) -> float:
        model = self._step_time(place.engine)
        context = work.tokens_in + work.tokens_out
        if place.itl:
            # What is observed holds for what runs; the work adds to it.
            return place.itl + model.step(context, 1) - model.step(0, 0)
        return model.step(place.context + context, place.running + 1)

    def pace_of(self, lane: Lane) -> float:
        """Predicted seconds between output tokens on the lane's reference engine."""
        model = self._step_time(self._references.get(lane, ""))
        return model.step(0, 0) if model.batch <= 1.0 else model.step(0, round(model.batch))

    def cached(self, work: Work, place: Place) -> int:
        seen = self._seen.get(place.engine)
        if seen is None or not work.prefix:
            return 0
        return min(work.tokens_in, seen.blocks(work.prefix) * BLOCK_TOKENS)

    def drain(self, lane: Lane) -> float:
        return self.drains(lane)

    # ------------------------------------------------------------ what the manager does

    def choice(self, work: Work, chosen: Place) -> Choice:
        """Tell what a work's place was chosen from, before its credit moves."""
        asked, found = self._considered
        scores: Mapping[str, float] = self._scores
        if asked != work.id:
            # The policy chose by itself, and says why.
            found, scores = self._candidates(work, None), {}
        return chosen_from(found, chosen, scores, selected=self._selector is not None)

    def place(self, work: Work, seats: Seats) -> Place | None:
        """What this engine offers the work: its open batch where that has room, else a free seat, else nothing."""
        if self._avoids(work, seats):
            return None
        batch = seats.batch
        if batch is not None and work.kind == "embed":
            room = self._executor.room(batch, work.id)
            if room:
                return msgspec.structs.replace(seats.place, batch=batch.ticket, room_tokens=room)
        # One open batch at a time: a second one beside it would take rows that the first could carry.
        if not seats.free or (batch is not None and work.kind == "embed"):
            return None
        return seats.place if seats.fits(work) else None

    def takes(self, work: Work) -> bool:
        """Whether some engine, or the batch that is open on it, has room for the work."""
        return next(iter(self.open(work)), None) is not None

    def held(self, lane: Lane) -> float:
        """Engine-seconds of the slices that no policy has seen yet, on the reference engine."""
        rate = self._rates.get((self._references.get(lane, ""), "embed"))
        return self._executor.held(lane) * (rate.per_token if rate else SECONDS_IN)

    def seats(self, engine: str, lane: Lane) -> Seats | None:
        """The engine's credits in a lane, or None when it does not serve it."""
        return self._lanes.get(lane, {}).get(engine)

    def capacity(self, lane: Lane) -> Capacity | None:
        """What a slice is cut to: the budget of a batch on the lane's reference engine; None without one."""
        return self.budget(self._references[lane]) if lane in self._references else None

    def budget(self, engine: str) -> Capacity:
        """The engine's capacity, with no more tokens in a batch than it computes in `BATCH_SECONDS`."""
        capacity = self._members[engine].info.capacity
        rate = self._rates.get((engine, "embed"))
        tokens = max(BATCH_LEAST, int(BATCH_SECONDS / (rate.per_token if rate else SECONDS_IN)))
        return msgspec.structs.replace(capacity, batch_tokens=min(capacity.batch_tokens, tokens))

    def running(self, lane: Lane) -> int:
        """Dispatches in the engines of a lane, open batches included."""
        return self._running.get(lane, 0)

    @property
    def taken(self) -> int:
        """Credits that are not back."""
        return sum(seats.running for pool in self._lanes.values() for seats in pool.values())

    def add(self, info: EngineInfo, lane: Lane) -> None:
        """Take an engine in."""
        member = self._members[info.id] = Member(info, lane)
        known = self._known.get((lane, info.identity))
        # A prompt's credit is about two chunks.
        chunk = info.capacity.prefill_tokens // 2
        self._steps[info.id] = StepTime(known.coefficients, chunk=chunk) if known else StepTime(chunk=chunk)
        self._known[lane, info.identity] = self._steps[info.id]
        for seats in member.all:
            self._lanes.setdefault(seats.lane, {})[info.id] = seats
            self._refer(seats.lane)
            self.refresh(seats)

    def remove(self, engine: str) -> Member | None:
        """Strike an engine off, with whatever it held."""
        member = self._members.pop(engine, None)
        if member is not None:
            for seats in member.all:
                self._lanes[seats.lane].pop(engine, None)
                self._refer(seats.lane)
                self._free.get(seats.lane, {}).pop(engine, None)
                self._bounds.pop(seats.lane, None)
                self._running[seats.lane] = self._running.get(seats.lane, 0) - seats.running
            self._seen.pop(engine, None)
            self._steps.pop(engine, None)
            self._rates = {key: rate for key, rate in self._rates.items() if key[0] != engine}
        return member

    def take(self, seats: Seats, cost: float, work: Work) -> None:
        """Move one credit to a dispatch, and the tokens of one that is no batch."""
        seats.running += 1
        self._running[seats.lane] = self._running.get(seats.lane, 0) + 1
        seats.load += cost
        if work.kind == "generate":
            seats.prefill += work.tokens_in
            seats.context += work.tokens_in + work.tokens_out
            if work.tpot is not None:
                seats.slos.append(work.tpot)
            if work.prefix:
                self._seen.setdefault(seats.engine, Prefixes()).add(work.prefix)
        self.refresh(seats)

    def give(self, seats: Seats, cost: float, work: Work, *, read: bool) -> None:
        """Return what `take` moved; what has been `read` was given back by `unload`."""
        seats.running -= 1
        self._running[seats.lane] -= 1
        seats.load = max(0.0, seats.load - cost) if seats.running else 0.0
        if work.kind == "generate":
            if not read:
                seats.prefill -= work.tokens_in
            seats.context -= work.tokens_in + work.tokens_out
            if work.tpot is not None:
                seats.slos.remove(work.tpot)
        self.refresh(seats)

    def meets(self, work: Work, place: Place) -> Observed:
        """What a work meets in an engine that it is sent to."""
        return Observed(place.prefill + work.tokens_in - self.cached(work, place), place.context, place.running + 1)

    def unload(self, seats: Seats, work: Work) -> None:
        """Take a prompt off that is read."""
        if work.kind == "generate":
            seats.prefill -= work.tokens_in
            self.refresh(seats)

    def first(self, seats: Seats, work: Work, met: Observed | None, seconds: float) -> None:
        """Learn from a first output token that has come after so long."""
        model = self._steps.get(seats.engine)
        if model is not None and met is not None:
            seats.read += work.tokens_in
            steps = model.chunks(met.tokens)
            model.learn(seconds, steps=steps, tokens=met.tokens, context=met.context, batch=met.batch)

    def pace(self, engine: str, itl: float, now: int) -> None:
        """Note the time between an engine's output tokens."""
        member = self._members.get(engine)
        if member is not None:
            seats = member.main
            seats.itl = itl
            if seats.running:
                read = prompts_per_step(seats.read, itl, now - seats.paced_at) if seats.paced_at else 0.0
                place = seats.place
                self._steps[engine].learn(itl, steps=1, tokens=read, context=place.context, batch=place.running)
            seats.read, seats.paced_at = 0, now
            self.refresh(seats)

    def close(self, engine: str) -> None:
        """Send an engine nothing more, until `reopen`."""
        self._set(engine, closed=True, probing=False)

    def reopen(self, engine: str, *, probing: bool = False) -> None:
        """Send to an engine again: one dispatch at a time while it is `probing`."""
        self._set(engine, closed=False, probing=probing)

    def resting(self, engine: str) -> bool:
        """Whether an engine holds nothing."""
        member = self._members.get(engine)
        return member is not None and not any(seats.running for seats in member.all)

    def avoid(self, work_id: str, engine: str) -> None:
        """Keep a work from an engine that failed it, as long as another one is up."""
        self._avoid[work_id] = (*self._avoid.get(work_id, ()), engine)

    def forget(self, work_id: str) -> None:
        """Drop what is kept about a work that is over."""
        self._avoid.pop(work_id, None)

    def refresh(self, seats: Seats) -> None:
        """Bring the index up to date after a credit moved or a batch opened, filled or closed."""
        seats.changed()
        self._bounds.pop(seats.lane, None)
        free = self._free.setdefault(seats.lane, {})
        if not seats.closed and (seats.free or seats.batch is not None):
            free[seats.engine] = seats
        else:
            free.pop(seats.engine, None)

    def learn(self, work: Work, engine: str, tokens: int, seconds: float) -> None:
        """Update the engine's rate from one finished dispatch that read so many tokens."""
        if tokens > 0:
            self._rates.setdefault((engine, work.kind), Rate(SECONDS_IN)).add(tokens, seconds)

    def wrote(
        self, work: Work, seats: Seats, tokens: int, seconds: float, *, first: float, met: Observed | None
    ) -> None:
        """Learn from a finished dispatch that wrote so many tokens, whose credit is back.

        Args:
            first: seconds to its first token; 0 where nobody saw it.
        """
        model = self._steps.get(seats.engine)
        if model is None or met is None:
            return
        steps, read = max(0, tokens - 1), 0
        if not first:
            steps, read = steps + model.chunks(met.tokens), met.tokens
        place = seats.place
        context = place.context + work.tokens_in + work.tokens_out
        model.learn(seconds - first, steps=steps, tokens=read, context=context, batch=place.running + 1)

    def _step_time(self, engine: str) -> StepTime:
        return self._steps.get(engine) or _UNKNOWN

    def _refer(self, lane: Lane) -> None:
        # The cheapest by price, the first among equals: what a tenant pays must not depend on where its work went.
        pool = self._lanes[lane]
        self._references.pop(lane, None)
        if pool:
            self._references[lane] = min(pool.values(), key=lambda seats: seats.price).engine

    def _set(self, engine: str, *, closed: bool, probing: bool) -> None:
        member = self._members.get(engine)
        if member is not None:
            for seats in member.all:
                seats.closed, seats.probing = closed, probing
                self.refresh(seats)

    def _avoids(self, work: Work, seats: Seats) -> bool:
        avoided = self._avoid.get(work.id)
        if not avoided or seats.engine not in avoided:
            return False
        return any(engine not in avoided for engine in self._lanes.get(work.lane, {}))

    def _give_up_selector(self, problem: str) -> None:
        self._selector = None
        self.faults.append(problem)
        log("selector_replaced", level=logging.ERROR, problem=problem, by="the least loaded")


def _bounds(free: Collection[Seats]) -> tuple[int, int]:
    most = max([seats.prompt_room for seats in free], default=-1)
    return most, max([seats.context_room for seats in free], default=-1)
