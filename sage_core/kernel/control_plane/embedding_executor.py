"""Micro-batching of embed requests: rows, slices and open batches, as pure bookkeeping without texts or vectors.

A row is one distinct text in flight; whoever asks for the same text waits for the same row. A slice is a child work:
rows of similar length that fit one batch. The slices of one request are a chain: one of them is queued at a time, so
that a request of thousands of texts is never further ahead of a later one than a slice. An open batch takes slices
until its budget of padded tokens is spent.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import msgspec

from sage_core.common.clock import MILLISECOND
from sage_core.common.records import Capacity, Lane, Work
from sage_core.kernel.control_plane.events import Outline
from sage_core.kernel.control_plane.packing import cut, lean

#: Longest time a batch waits for company on an engine that is busy anyway.
LINGER = 3 * MILLISECOND


class Row:
    """One distinct text in flight."""

    __slots__ = ("at", "key", "slice", "tokens", "waiters")

    def __init__(self, key: tuple[str, ...], tokens: int) -> None:
        self.key = key
        self.tokens = tokens
        #: Request id → places of this text in it; empty when everyone has gone.
        self.waiters: dict[str, list[int]] = {}
        #: None while its request is being taken in.
        self.slice: Slice | None = None
        #: Position in the dispatched batch.
        self.at = -1


class Chain:
    """The slices cut from one request, shortest texts first."""

    __slots__ = ("flying", "held", "queued")

    def __init__(self) -> None:
        #: Slices that no policy has seen yet.
        self.held: dict[Slice, None] = {}
        #: Slices that wait in a queue, and slices in a batch.
        self.queued: dict[Slice, None] = {}
        self.flying: dict[Slice, None] = {}


class Slice:
    """A child work of an embed request."""

    __slots__ = ("alone", "attempts", "chain", "longest", "losses", "rows", "ticket", "tokens", "work")

    def __init__(self, work: Work, rows: list[Row], chain: Chain) -> None:
        self.work = work
        self.chain = chain
        self.keep(rows)
        #: The batch it is in, or 0 while it is queued.
        self.ticket = 0
        #: Engines that were lost with it.
        self.losses = 0
        #: Attempts that an engine failed without being lost.
        self.attempts = 0
        #: A slice whose batch failed runs by itself the next time, so that one bad text harms no other request.
        self.alone = False

    @property
    def padded(self) -> int:
        """Tokens that a batch of it alone computes."""
        return self.longest * len(self.rows)

    def keep(self, rows: list[Row]) -> None:
        """Consist of these rows."""
        self.rows = rows
        self.longest = max((row.tokens for row in rows), default=0)
        self.tokens = sum(row.tokens for row in rows)


class OpenBatch:
    """A batch that still takes slices."""

    __slots__ = ("budget", "closes_at", "engine", "longest", "rows", "slices", "ticket", "tokens")

    def __init__(self, ticket: int, engine: str, capacity: Capacity, closes_at: int) -> None:
        self.ticket = ticket
        self.engine = engine
        self.budget = capacity
        self.closes_at = closes_at
        self.slices: list[Slice] = []
        self.rows = 0
        self.longest = 0
        self.tokens = 0

    @property
    def full(self) -> bool:
        """Whether no further row can fit."""
        return (
            self.rows >= self.budget.batch_rows
            or self.longest * (self.rows + 1) > self.budget.batch_tokens
            or any(each.alone for each in self.slices)
        )


class Share:
    """What one request gets of a finished batch: these rows at these places of its answer."""

    __slots__ = ("at", "rows", "tokens")

    def __init__(self) -> None:
        self.rows: list[int] = []
        self.at: list[int] = []
        #: Estimated tokens of the distinct rows among them.
        self.tokens = 0


class EmbeddingExecutor:
    """Owns the rows and slices of all embed requests between submission and answer."""

    def __init__(self) -> None:
        self._rows: dict[tuple[str, ...], Row] = {}
        self._slices: dict[str, Slice] = {}
        #: Request → its unanswered rows; a dict, because the order of a set differs between processes.
        self._waiting: dict[str, dict[Row, None]] = {}
        #: Chains that hold slices back, by lane.
        self._chains: dict[Lane, dict[Chain, None]] = {}

    def take(self, outline: Outline, work: Work, tokens: Sequence[int], capacity: Capacity) -> list[Slice]:
        """Register a request's rows and return the slices to queue; none when all its texts are in flight already."""
        fresh: list[Row] = []
        mine = self._waiting[outline.id] = {}
        for index, (key, size) in enumerate(zip(outline.keys, tokens, strict=True)):
            # Tenant and class are in the key: one must neither pay for nor wait in the queue of another.
            name = (outline.lane, work.tenant, work.service_class, key)
            row = self._rows.get(name)
            if row is None or self._later(row, work):
                row = self._rows[name] = Row(name, min(size, capacity.context))
                fresh.append(row)
            elif row.slice is not None and self._hastens(row.slice, len(outline.keys)):
                self._move(row)
                fresh.append(row)
            row.waiters.setdefault(outline.id, []).append(index)
            mine[row] = None
        chain = Chain()
        for number, places in enumerate(cut([row.tokens for row in fresh], capacity.batch_tokens, capacity.batch_rows)):
            rows = [fresh[place] for place in places]
            tokens_in = sum(row.tokens for row in rows)
            part = msgspec.structs.replace(work, id=f"{work.id}/{number}", rows=len(rows), tokens_in=tokens_in)
            each = Slice(part, rows, chain)
            for row in rows:
                row.slice = each
            self._slices[part.id] = each
            chain.held[each] = None
        if not chain.held:
            return []
        self._chains.setdefault(work.lane, {})[chain] = None
        return [self._release(chain)]

    def due(self, lane: Lane, now: int) -> Iterator[Slice]:
        """Slices to queue because nothing else of their request is queued or in an engine."""
        for chain in list(self._chains.get(lane, ())):
            if not chain.queued and not chain.flying:
                yield self._release(chain, now)

    def spare(self, lane: Lane, fits: Callable[[Work], bool], now: int) -> Slice | None:
        """A slice to queue because nothing is queued that could go where this one fits."""
        for chain in self._chains.get(lane, ()):
            if not chain.queued and fits(next(iter(chain.held)).work):
                return self._release(chain, now)
        return None

    def holds(self, lane: Lane) -> bool:
        """Whether there are slices that no policy has seen yet."""
        return bool(self._chains.get(lane))

    def held(self, lane: Lane) -> int:
        """Padded tokens of those."""
        return sum(part.padded for chain in self._chains.get(lane, ()) for part in chain.held)

    def waits(self, request: str) -> bool:
        """Whether some text of a request is in no engine yet."""
        return any(row.slice is None or not row.slice.ticket for row in self._waiting.get(request, ()))

    def slice(self, work_id: str) -> Slice:
        """The slice behind a child work."""
        return self._slices[work_id]

    def padded(self, work_id: str) -> int:
        """Tokens that a batch of the child work alone computes; 0 once it is over."""
        part = self._slices.get(work_id)
        return part.padded if part is not None else 0

    def room(self, batch: OpenBatch, work_id: str) -> int:
        """Padded tokens left in the batch when the slice fits it, else 0."""
        part = self._slices[work_id]
        rows = batch.rows + len(part.rows)
        padded = max(batch.longest, part.longest) * rows
        if part.alone or batch.full or rows > batch.budget.batch_rows or padded > batch.budget.batch_tokens:
            return 0
        if not lean(padded, batch.tokens + part.tokens):
            return 0
        return batch.budget.batch_tokens - batch.longest * batch.rows

    def join(self, batch: OpenBatch, part: Slice) -> None:
        """Put a slice into a batch."""
        part.ticket = batch.ticket
        part.chain.queued.pop(part, None)
        part.chain.flying[part] = None
        batch.slices.append(part)
        batch.rows += len(part.rows)
        batch.longest = max(batch.longest, part.longest)
        batch.tokens += part.tokens

    def close(self, batch: OpenBatch) -> list[Row]:
        """Fix the batch's rows, in the order in which they are computed: by length, without those nobody wants."""
        rows = sorted((row for each in batch.slices for row in each.rows if row.waiters), key=lambda row: row.tokens)
        for at, row in enumerate(rows):
            row.at = at
        return rows

    def aboard(self, request: str) -> list[int]:
        """The batches that hold texts of a request, in a stable order."""
        rows = self._waiting.get(request, ())
        return list(dict.fromkeys(row.slice.ticket for row in rows if row.slice is not None and row.slice.ticket))

    def leave(self, request: str) -> list[Slice]:
        """Take a cancelled request out; return the queued slices that nobody wants any more."""
        touched: dict[str, Slice] = {}
        for row in self._waiting.pop(request, ()):
            row.waiters.pop(request, None)
            if not row.waiters:
                self._forget(row)
                if row.slice is not None and not row.slice.ticket:
                    touched[row.slice.work.id] = row.slice
        empty = []
        for each in touched.values():
            each.keep([row for row in each.rows if row.waiters])
            if not each.rows and each.work.id in self._slices:
                self._drop(each)
                empty.append(each)
        return empty

    def finish(self, parts: Sequence[Slice]) -> Iterator[tuple[str, Share, bool]]:
        """End a batch: per request its share, and whether its answer is complete with it."""
        shares: dict[str, Share] = {}
        for part in parts:
            self._drop(part)
            for row in part.rows:
                self._forget(row)
                for request, places in row.waiters.items():
                    share = shares.setdefault(request, Share())
                    share.rows.extend([row.at] * len(places))
                    share.at.extend(places)
                    share.tokens += row.tokens
                    self._waiting[request].pop(row, None)
        for request, share in shares.items():
            complete = not self._waiting[request]
            if complete:
                del self._waiting[request]
            yield request, share, complete

    def fail(self, part: Slice) -> list[str]:
        """Give a slice up; return the requests that waited for any of its rows, in a stable order."""
        self._drop(part)
        for row in part.rows:
            self._forget(row)
        return list(dict.fromkeys(request for row in part.rows for request in row.waiters))

    def again(self, part: Slice) -> bool:
        """Make a dispatched slice queueable again; false when nobody wants it any more."""
        part.ticket = 0
        part.keep([row for row in part.rows if row.waiters])
        if part.rows:
            del part.chain.flying[part]
            part.chain.queued[part] = None
        else:
            self._drop(part)
        return bool(part.rows)

    @property
    def size(self) -> int:
        """Everything held, in rows, slices and waiting requests: 0 when nothing is in flight."""
        chains = sum(map(len, self._chains.values()))
        return len(self._rows) + len(self._slices) + len(self._waiting) + chains

    def _later(self, row: Row, work: Work) -> bool:
        # A queued row may sit behind a deadline that is later than the newcomer's.
        if row.slice is None or row.slice.ticket or work.deadline is None:
            return False
        theirs = row.slice.work.deadline
        return theirs is None or theirs > work.deadline

    def _hastens(self, part: Slice, size: int) -> bool:
        # A short request would wait for its turn in a long one that holds the same text back. Only ever a shorter one
        # takes it over, so that no text is passed on for ever.
        return part in part.chain.held and size < sum(len(each.rows) for each in part.chain.held)

    def _move(self, row: Row) -> None:
        part = row.slice
        assert part is not None
        part.keep([each for each in part.rows if each is not row])
        row.slice = None
        if not part.rows:
            self._drop(part)

    def _release(self, chain: Chain, now: int | None = None) -> Slice:
        part = next(iter(chain.held))
        del chain.held[part]
        chain.queued[part] = None
        if now is not None:
            # Behind those who came while its siblings were served.
            part.work = msgspec.structs.replace(part.work, arrival=now)
        self._unlist(part)
        return part

    def _drop(self, part: Slice) -> None:
        self._slices.pop(part.work.id, None)
        for state in (part.chain.held, part.chain.queued, part.chain.flying):
            state.pop(part, None)
        self._unlist(part)

    def _unlist(self, part: Slice) -> None:
        if not part.chain.held:
            self._chains.get(part.work.lane, {}).pop(part.chain, None)

    def _forget(self, row: Row) -> None:
        if self._rows.get(row.key) is row:
            del self._rows[row.key]
