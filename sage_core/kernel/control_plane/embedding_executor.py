"""Micro-batching of embed requests: rows, slices and open batches, as pure bookkeeping without texts or vectors.

A row is one distinct text in flight; whoever asks for the same text waits for the same row. A slice is a child work:
rows of similar length that fit one batch. An open batch takes slices until its budget of padded tokens is spent.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import msgspec

from sage_core.common.clock import MILLISECOND
from sage_core.common.records import Capacity, Work
from sage_core.kernel.control_plane.events import Outline

#: Longest time a batch waits for company on an engine that is busy anyway.
LINGER = 3 * MILLISECOND
#: A batch may hold this much padding: a share of its tokens, and an amount too small to matter.
WASTE_SHARE, WASTE_TOKENS = 0.2, 256


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


class Slice:
    """A child work of an embed request."""

    __slots__ = ("alone", "attempts", "longest", "losses", "rows", "ticket", "tokens", "work")

    def __init__(self, work: Work, rows: list[Row]) -> None:
        self.work = work
        self.rows = rows
        self.longest = max(row.tokens for row in rows)
        self.tokens = sum(row.tokens for row in rows)
        #: The batch it is in, or 0 while it is queued.
        self.ticket = 0
        #: Engines that were lost with it.
        self.losses = 0
        #: Attempts that an engine failed without being lost.
        self.attempts = 0
        #: A slice whose batch failed runs by itself the next time, so that one bad text harms no other request.
        self.alone = False


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
            row.waiters.setdefault(outline.id, []).append(index)
            mine[row] = None
        slices = []
        for number, rows in enumerate(_cut(fresh, capacity)):
            tokens_in = sum(row.tokens for row in rows)
            part = msgspec.structs.replace(work, id=f"{work.id}/{number}", rows=len(rows), tokens_in=tokens_in)
            each = Slice(part, rows)
            for row in rows:
                row.slice = each
            self._slices[part.id] = each
            slices.append(each)
        return slices

    def slice(self, work_id: str) -> Slice:
        """The slice behind a child work."""
        return self._slices[work_id]

    def room(self, batch: OpenBatch, work_id: str) -> int:
        """Padded tokens left in the batch when the slice fits it, else 0."""
        part = self._slices[work_id]
        rows = batch.rows + len(part.rows)
        padded = max(batch.longest, part.longest) * rows
        if part.alone or batch.full or rows > batch.budget.batch_rows or padded > batch.budget.batch_tokens:
            return 0
        if not _lean(padded, batch.tokens + part.tokens):
            return 0
        return batch.budget.batch_tokens - batch.longest * batch.rows

    def join(self, batch: OpenBatch, part: Slice) -> None:
        """Put a slice into a batch."""
        part.ticket = batch.ticket
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
            each.rows = [row for row in each.rows if row.waiters]
            if not each.rows and self._slices.pop(each.work.id, None) is not None:
                empty.append(each)
        return empty

    def finish(self, parts: Sequence[Slice]) -> Iterator[tuple[str, Share, bool]]:
        """End a batch: per request its share, and whether its answer is complete with it."""
        shares: dict[str, Share] = {}
        for part in parts:
            del self._slices[part.work.id]
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
        self._slices.pop(part.work.id, None)
        for row in part.rows:
            self._forget(row)
        return list(dict.fromkeys(request for row in part.rows for request in row.waiters))

    def again(self, part: Slice) -> bool:
        """Make a dispatched slice queueable again; false when nobody wants it any more."""
        part.ticket = 0
        part.rows = [row for row in part.rows if row.waiters]
        if not part.rows:
            del self._slices[part.work.id]
        return bool(part.rows)

    @property
    def size(self) -> int:
        """Everything held, in rows, slices and waiting requests: 0 when nothing is in flight."""
        return len(self._rows) + len(self._slices) + len(self._waiting)

    def _later(self, row: Row, work: Work) -> bool:
        # A queued row may sit behind a deadline that is later than the newcomer's.
        if row.slice is None or row.slice.ticket or work.deadline is None:
            return False
        theirs = row.slice.work.deadline
        return theirs is None or theirs > work.deadline

    def _forget(self, row: Row) -> None:
        if self._rows.get(row.key) is row:
            del self._rows[row.key]


def _cut(rows: list[Row], capacity: Capacity) -> Iterator[list[Row]]:
    part: list[Row] = []
    tokens = 0
    for row in sorted(rows, key=lambda row: row.tokens):
        # Sorted, so the newest row is the longest of its slice.
        padded = row.tokens * (len(part) + 1)
        room = padded <= capacity.batch_tokens and len(part) < capacity.batch_rows
        if part and not (room and _lean(padded, tokens + row.tokens)):
            yield part
            part, tokens = [], 0
        part.append(row)
        tokens += row.tokens
    if part:
        yield part


def _lean(padded: int, tokens: int) -> bool:
    return padded - tokens <= max(WASTE_SHARE * tokens, WASTE_TOKENS)
