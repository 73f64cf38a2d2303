"""Rows inside a job: one table per grain, columns as Python lists (vectors as one numpy block), presence as masks.

A child table knows, for each row, the index of its parent row; reading an ancestor's column is one list of indices.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import msgspec

from sage_core.kernel.dataflow.graph import RUN

#: A column's values: a list, or a float32 block of shape (n, d).
Values = list[Any]
#: Which rows are present; None means all.
Mask = list[bool] | None


class Column(msgspec.Struct, eq=False):
    """Values of one column and where they are present; what stands in an absent place has no meaning."""

    values: Any
    present: Mask = None

    def take(self, rows: Sequence[int]) -> Column:
        """The column at these rows, in this order; rows may repeat."""
        present = None if self.present is None else [self.present[row] for row in rows]
        return Column(take(self.values, rows), present)


class Table(msgspec.Struct, eq=False):
    """The rows of one grain: `n` of them, each with the index of its parent row."""

    grain: str
    n: int
    #: Index of each row's parent in the parent grain's table; None for the run's row and for root grains.
    parent: list[int] | None = None
    columns: dict[str, Column] = {}
    #: Presence of steps, by name: a step's columns are present exactly there.
    marks: dict[str, Mask] = {}


class Frame:
    """Everything a job holds: the run's row, the root table and what descends from it."""

    def __init__(self, parents: dict[str, tuple[str, ...]], *, offset: int = 0) -> None:
        self._parents = parents
        #: Rows of the root grain that lie before this partition; makes row ids those of the run.
        self.offset = offset
        self.tables: dict[str, Table] = {RUN: Table(RUN, 1)}
        self._paths: dict[tuple[str, str], list[int] | None] = {}

    def column(self, grain: str, key: str) -> Column:
        """The column `key` (``step.name``) as seen from each row of `grain`: its own, or an ancestor's, repeated."""
        for table in self._upwards(grain):
            if key in table.columns:
                rows = self.path(grain, table.grain)
                return table.columns[key] if rows is None else table.columns[key].take(rows)
        raise KeyError(f"{key} is not in reach of grain {grain!r}")

    def mark(self, grain: str, step: str) -> Mask:
        """Presence of a step as seen from each row of `grain`; None where it is present everywhere."""
        for table in self._upwards(grain):
            if step in table.marks:
                mask, rows = table.marks[step], self.path(grain, table.grain)
                return mask if rows is None or mask is None else [mask[row] for row in rows]
        return None

    def path(self, grain: str, ancestor: str) -> list[int] | None:
        """For each row of `grain`, the index of its row in `ancestor`; None when they are the same table."""
        if grain == ancestor:
            return None
        known = self._paths.get((grain, ancestor))
        if known is None:
            table = self.tables[grain]
            above = self.path(self._parents[grain][0], ancestor) if table.parent is not None else None
            if ancestor == RUN:
                known = [0] * table.n
            elif table.parent is None:
                raise KeyError(f"{ancestor!r} is no ancestor of {grain!r} inside this job")
            else:
                known = table.parent if above is None else [above[row] for row in table.parent]
            self._paths[grain, ancestor] = known
        return known

    def label(self, grain: str, row: int) -> str:
        """The row's id: its number among its siblings, from the root down: ``3/0/2``."""
        parts: list[int] = []
        while grain != RUN:
            parent = self.tables[grain].parent
            if parent is None:
                parts.append(row + self.offset)
                break
            # Siblings stand together, so the first row of the same parent is where their count starts.
            parts.append(row - parent.index(parent[row]))
            grain, row = self._parents[grain][0], parent[row]
        return "/".join(str(part) for part in reversed(parts))

    def parent(self, grain: str) -> str:
        """The grain right above."""
        return self._parents[grain][0] if self._parents[grain] else RUN

    def _upwards(self, grain: str) -> Iterator[Table]:
        while grain != RUN:
            if grain in self.tables:
                yield self.tables[grain]
                if self.tables[grain].parent is None:
                    break
            grain = self._parents[grain][0]
        yield self.tables[RUN]


def take(values: Any, rows: Sequence[int]) -> Any:
    """Values at these rows: a list from a list, a block from a block."""
    return [values[row] for row in rows] if isinstance(values, list) else values[list(rows)]


def concat(parts: Sequence[Any]) -> Any:
    """One list, or one block where any is one; blocks need equal dimensions, rows without a vector become zeros."""
    if len(parts) == 1:
        return parts[0]
    parts = [part for part in parts if len(part)] or parts[:1]
    block = next((part for part in parts if not isinstance(part, list)), None)
    if block is None:
        return [value for part in parts for value in part]
    import numpy  # noqa: PLC0415 - only runs with vectors pay for numpy

    zero = numpy.zeros(block.shape[1:], dtype=block.dtype)
    return numpy.concatenate(
        [[zero if v is None else v for v in part] if isinstance(part, list) else part for part in parts]
    )


def merge(columns: Sequence[Column], n: int) -> Column:
    """The first present of several columns, row by row: a reference list."""
    if len(columns) == 1 or columns[0].present is None:
        return columns[0]
    values: list[Any] = [None] * n
    present = [False] * n
    for column in columns:
        for row in range(n):
            if not present[row] and (column.present is None or column.present[row]):
                values[row], present[row] = column.values[row], True
    return Column(values, None if all(present) else present)


def both(first: Mask, second: Mask) -> Mask:
    """Rows present in both masks."""
    if first is None or second is None:
        return second if first is None else first
    return [a and b for a, b in zip(first, second, strict=True)]


def rows_of(mask: Mask, n: int) -> Sequence[int]:
    """Indices of the present rows."""
    return range(n) if mask is None else [row for row in range(n) if mask[row]]


def mask_of(rows: Sequence[int], n: int) -> Mask:
    """Presence on these rows of `n`; they are in order and do not repeat."""
    if len(rows) == n:
        return None
    present = [False] * n
    for row in rows:
        present[row] = True
    return present


def spread(values: Any, rows: Sequence[int], n: int) -> Any:
    """Put values computed for `rows` back among `n` rows."""
    if len(rows) == n:
        return values
    full: Any = [None] * n
    if not isinstance(values, list):
        import numpy  # noqa: PLC0415 - only runs with vectors pay for numpy

        full = numpy.zeros((n, *values.shape[1:]), dtype=values.dtype)
        full[list(rows)] = values
        return full
    for row, value in zip(rows, values, strict=True):
        full[row] = value
    return full


def block(values: Any) -> Any:
    """Vectors as one float32 block, however they come."""
    if not isinstance(values, list):
        return values
    import numpy  # noqa: PLC0415 - only runs with vectors pay for numpy

    return numpy.asarray(values, dtype=numpy.float32) if values else numpy.zeros((0, 0), dtype=numpy.float32)
