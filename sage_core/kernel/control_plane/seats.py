"""What the ledger keeps for each engine: its credits, its rates, and the prompts it has seen."""

from __future__ import annotations

import sys
from itertools import islice

from sage_core.common.clock import SECOND
from sage_core.common.records import Candidate, EngineInfo, Lane, Occupancy, Place, Work
from sage_core.kernel.control_plane.embedding_executor import OpenBatch
from sage_core.kernel.control_plane.request_classifier import tokenizing

#: Tokenize calls an engine takes at a time, beside its seats.
TOKENIZE_SEATS = 2
#: Tokens that the first guess of a rate counts for, and tokens after which what was measured begins to fade.
GUESSED, REMEMBERED = 256, 16_384
#: Blocks of prompts remembered for each engine at least, and how many more before so many are forgotten at once: the
#: oldest of a dict is found by a look at every place that was freed before it.
REMEMBERED_BLOCKS, FORGOTTEN_BLOCKS = 65_536, 4_096


class Seats:
    """Credits of one engine in one lane."""

    __slots__ = (
        "_candidate",
        "_others_were",
        "_place",
        "batch",
        "capacity",
        "closed",
        "context",
        "context_room",
        "engine",
        "itl",
        "lane",
        "least",
        "limit",
        "load",
        "others",
        "others_context",
        "paced_at",
        "peak",
        "prefill",
        "price",
        "probing",
        "prompt_room",
        "read",
        "running",
        "slos",
    )

    def __init__(self, info: EngineInfo, lane: Lane, limit: int) -> None:
        self.engine = info.id
        self.capacity = info.capacity
        self.price = info.price
        self.lane = lane
        self.limit = limit
        #: Prompt tokens without a first output token, and tokens of context reserved.
        self.prefill = 0
        self.context = 0
        #: Seconds between output tokens, of late.
        self.itl = 0.0
        #: When that was observed last (ns; 0: never), and prompt tokens read since.
        self.paced_at = 0
        self.read = 0
        #: The `Work.tpot` of what it holds, where it has one.
        self.slos: list[int] = []
        #: Nothing is sent to it: it drains, or is left alone for a while; `probing`: one dispatch, to see.
        self.closed = False
        self.probing = False
        #: Requests that others have in it, and tokens of context that these hold.
        self.others = self.others_context = 0
        #: The most and the fewest dispatches at once since it said last what it holds.
        self.peak = self.least = 0
        #: How many requests are others' at least and at most, by what it said last.
        self._others_were = 0, 0
        self._place: Place | None = None
        self._candidate: Candidate | None = None
        #: Dispatches in the engine, an open batch included.
        self.running = 0
        #: Predicted engine-seconds of what it holds.
        self.load = 0.0
        #: The batch that still takes rows; it has taken its seat already.
        self.batch: OpenBatch | None = None
        #: The largest prompt, and the most tokens in all, that it has room for; kept by `changed`.
        self.prompt_room = self.context_room = 0
        self.changed()

    @property
    def free(self) -> bool:
        """Whether a dispatch may take a seat."""
        # One place is ours whatever others do: the engine lets it wait in its own queue, and nobody starves.
        return not self.closed and self.running < (1 if self.probing else max(1, self.limit - self.others))

    @property
    def place(self) -> Place:
        """The engine as policies see it, made once for each change."""
        if self._place is None:
            self._place = Place(
                engine=self.engine,
                running=self.running + self.others,
                load=self.load,
                prefill=self.prefill,
                context=self.context + self.others_context,
                itl=self.itl if self.running else 0.0,
                tpot=min(self.slos) / SECOND if self.slos else 0.0,
                price=self.price,
                seats=self.limit,
            )
        return self._place

    @property
    def candidate(self) -> Candidate:
        """The same for selectors, to a work of which the engine knows no prefix."""
        if self._candidate is None:
            place = self.place
            self._candidate = Candidate(id=place.engine, running=place.running, load=place.load, place=place)
        return self._candidate

    def changed(self) -> None:
        """Forget what was made before, and tell anew what fits; an empty engine takes anything."""
        self._place = self._candidate = None
        if self.running > self.peak:
            self.peak = self.running
        elif self.running < self.least:
            self.least = self.running
        limits = self.capacity
        bound = limits.prefill_tokens and self.prefill
        self.prompt_room = (limits.prefill_tokens - self.prefill if bound else sys.maxsize) if self.free else -1
        left = limits.kv_tokens - self.others_context - self.context
        self.context_room = left if limits.kv_tokens and self.context else sys.maxsize

    def share(self, held: Occupancy) -> bool:
        """Take in what the engine says that it holds; true when the room for ours has changed.

        Others' is at least what goes beyond the most that was ours since the last time, and at most what goes beyond
        the fewest, either twice in a row, as an engine is behind by a step. One that nobody else uses never shows any.
        """
        before = self.others, self.others_context
        low, high = max(0, held.requests - self.peak), max(0, held.requests - self.least)
        least, most = self._others_were
        self.others = min(max(self.others, min(low, least)), max(high, most))
        self._others_were = low, high
        self.peak = self.least = self.running
        # Ours is reserved for what has not been written yet, too: what exceeds that is others' for certain.
        shared = held.kv_tokens * self.others // max(1, held.requests)
        self.others_context = max(shared, held.kv_tokens - self.context) if self.others else 0
        return before != (self.others, self.others_context)

    def fits(self, work: Work) -> bool:
        """Whether the engine has a seat and the tokens for it."""
        return work.tokens_in <= self.prompt_room and work.tokens_in + work.tokens_out <= self.context_room


class Member:
    """One ready engine."""

    __slots__ = ("info", "lane", "main", "tokenize")

    def __init__(self, info: EngineInfo, lane: Lane) -> None:
        self.info = info
        self.lane = lane
        self.main = Seats(info, lane, max(1, info.capacity.sequences))
        self.tokenize = Seats(info, tokenizing(lane), TOKENIZE_SEATS)

    @property
    def all(self) -> tuple[Seats, Seats]:
        """Its seats in both lanes."""
        return self.main, self.tokenize


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


class Prefixes(dict[int, None]):
    """Blocks of prompts that an engine has seen, the latest ones."""

    __slots__ = ()

    def add(self, prefix: tuple[int, ...]) -> None:
        """Take a prompt's blocks in, as the latest."""
        for block in prefix:
            self.pop(block, None)
            self[block] = None
        if len(self) > REMEMBERED_BLOCKS + FORGOTTEN_BLOCKS:
            for block in list(islice(self, FORGOTTEN_BLOCKS)):
                del self[block]

    def blocks(self, prefix: tuple[int, ...]) -> int:
        """How many of these blocks are there, from the first without a gap."""
        found = 0
        for block in prefix:
            if block not in self:
                break
            found += 1
        return found
