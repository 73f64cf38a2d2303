"""What a job leaves behind: its tables, the digests of their columns, its statistics and the rows that failed.

Small tables travel inside the result's row in the store; larger ones are Parquet files any Arrow tool opens, named by
the digest of their content. Columns are digested one by one, so that a job's key depends on just what it reads.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

from sage_core.common.errors import OperatorError
from sage_core.common.records import Record, RowFailure, StepTime
from sage_core.kernel.runtime.steps import StepStats
from sage_core.kernel.runtime.table import Column, Mask, Table, rows_of, take
from sage_core.kernel.runtime.values import Codec, digest
from sage_core.platform.artifacts import ArtifactStore, explained

#: Tables up to this many encoded bytes stay in the store: reading them needs no pyarrow, which costs 100 ms to import.
INLINE = 64 * 1024


class StoredTable(Record):
    """One grain's rows: inline bytes, or a file's digest."""

    rows: int
    inline: bytes = b""
    file: str = ""


class Result(Record):
    """Everything a finished job says; encoded as the body of its row in the store."""

    tables: dict[str, StoredTable] = {}
    #: ``step.column`` → digest of values and presence; ``step?`` → digest of presence alone.
    digests: dict[str, str] = {}
    stats: dict[str, StepStats] = {}
    failures: tuple[RowFailure, ...] = ()
    #: The part of `stats` that tells of the root rows in which something failed; a redrive takes it out.
    redo: dict[str, StepStats] = {}
    #: Number of the job's first row in the run that made this: ids of failed rows start from it.
    start: int = 0
    #: Digests of artifact directories the values name.
    artifacts: tuple[str, ...] = ()
    #: Seconds from claim to result.
    seconds: float = 0.0
    #: Tokens of generated answers: ``prompt`` and ``completion``.
    tokens: dict[str, int] = {}

    @property
    def files(self) -> tuple[str, ...]:
        """Digests of the files that it stands on."""
        return (*(stored.file for stored in self.tables.values() if stored.file), *self.artifacts)

    def step_times(self) -> tuple[StepTime, ...]:
        """What each step did, in the order they ran."""
        return tuple(
            StepTime(name=name, seconds=s.seconds, rows_in=s.rows_in, rows_out=s.rows_out, failed=s.failed)
            for name, s in self.stats.items()
        )

    def encode(self) -> bytes:
        """Bytes for the store."""
        return msgspec.msgpack.encode(self)


def decode_result(body: bytes) -> Result:
    """Undo `Result.encode`."""
    return msgspec.msgpack.decode(body, type=Result)


class Tables:
    """Writes and reads tables."""

    def __init__(self, codec: Codec, artifacts: ArtifactStore) -> None:
        self._codec = codec
        self._artifacts = artifacts

    @property
    def artifacts(self) -> ArtifactStore:
        """Where its files and the artifacts that values name are."""
        return self._artifacts

    def digests(self, table: Table, columns: Iterable[str], marks: Iterable[str]) -> dict[str, str]:
        """Digests of these columns, and of where these steps' rows are and which parents they have."""
        found = {}
        for key in columns:
            try:
                found[key] = self.column_digest(table.columns[key])
            except (TypeError, ValueError, OverflowError) as error:
                step, _, name = key.partition(".")
                raise OperatorError(step, f"column {name!r} cannot be kept: {error}") from None
        shape = [table.n, table.parent]
        return found | {f"{step}?": digest(self._codec.encode([shape, table.marks[step]])) for step in marks}

    def row_hashes(self, table: Table) -> list[int]:
        """One integer per row, equal for rows of equal content."""
        columns = [column.values for column in table.columns.values()]
        rows = zip(*columns, strict=True) if columns else ((row,) for row in range(table.n))
        encode, hasher = self._codec.encode, hashlib.blake2b
        return [int.from_bytes(hasher(encode(row), digest_size=8).digest(), "big") for row in rows]

    def column_digest(self, column: Column) -> str:
        """Digest of a column's values where they are present, and of where that is."""
        values, present = column.values, column.present
        if present is not None:
            # What stands in an absent place has no meaning, whatever it is.
            values = take(values, rows_of(present, len(present)))
        return digest(self._codec.encode(values), self._codec.encode(present))

    def write(self, table: Table, columns: Iterable[str], marks: Iterable[str]) -> StoredTable:
        """Keep some of a table's columns and marks, with the way to the parent rows."""
        kept = {key: table.columns[key] for key in columns}
        shown: dict[str, Mask] = {step: table.marks[step] for step in marks}
        if _size(kept, INLINE) <= INLINE:
            body = self._codec.encode(
                [table.n, table.parent, {key: [column.values, column.present] for key, column in kept.items()}, shown]
            )
            if len(body) <= INLINE:
                return StoredTable(rows=table.n, inline=body)
        from sage_core.kernel.runtime import parquet  # noqa: PLC0415 - pyarrow is loaded for large tables only

        tmp = self._artifacts.new_file()
        with explained(self._artifacts.root):
            parquet.write(tmp, table, kept, shown, self._codec)
        return StoredTable(rows=table.n, file=self._artifacts.publish_file(tmp, suffix=".parquet"))

    def read(self, stored: StoredTable, grain: str, columns: Iterable[str]) -> Table:
        """Read a table back, with at least these columns; raises `CorruptArtifact`."""
        if not stored.file:
            n, parent, kept, marks = self._codec.decode(stored.inline)
            table = Table(grain, n, parent)
            table.columns = {key: Column(values, present) for key, (values, present) in kept.items()}
            table.marks = marks
            return table
        from sage_core.kernel.runtime import parquet  # noqa: PLC0415 - pyarrow is loaded for large tables only

        self._artifacts.verify(stored.file)
        return parquet.read(self._artifacts.path(stored.file), grain, list(columns), self._codec)


def slice_table(table: Table, start: int, stop: int) -> Table:
    """Rows [start, stop) of a root table."""
    part = Table(table.grain, stop - start)
    part.columns = {
        key: Column(column.values[start:stop], None if column.present is None else column.present[start:stop])
        for key, column in table.columns.items()
    }
    part.marks = {step: None if mask is None else mask[start:stop] for step, mask in table.marks.items()}
    return part


def _size(columns: Mapping[str, Column], enough: int) -> int:
    """A lower bound of the encoded size, given up as soon as it passes `enough`."""
    total = 0
    for column in columns.values():
        if not isinstance(column.values, list):
            total += int(column.values.nbytes)
        else:
            for value in column.values:
                total += len(value) if isinstance(value, str | bytes) else 1
                if total > enough:
                    return total
        if total > enough:
            return total
    return total


def mentions(value: Any, kind: type) -> list[Any]:
    """Values of a class anywhere inside a value."""
    if isinstance(value, kind):
        return [value]
    if isinstance(value, Mapping):
        return [found for item in value.values() for found in mentions(item, kind)]
    if isinstance(value, list) and not _SCALARS.issuperset(map(type, value)):
        return [found for item in value for found in mentions(item, kind)]
    return []


#: Types that hold nothing: a column of these is not searched value by value.
_SCALARS = frozenset({str, int, float, bool, bytes, type(None)})
