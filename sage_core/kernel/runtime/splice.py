"""Computes the rows of a partition again that failed, and puts what they give among the rows that did not.

The unit is a root row of the partition with all that descends from it: the steps of the job run over just those rows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import msgspec

from sage_core.common.records import Record, RowFailure
from sage_core.kernel.dataflow.graph import Graph
from sage_core.kernel.runtime.bindings import Compile, select, select_items
from sage_core.kernel.runtime.steps import StepStats
from sage_core.kernel.runtime.table import Column, Frame, Mask, Table, concat, take


class Base(Record):
    """What an attempt starts from where a result is there already: its tables, and the rows of it that failed."""

    tables: dict[str, Table]
    failures: tuple[RowFailure, ...]
    #: Number of the first row when the failures were numbered.
    start: int
    stats: dict[str, StepStats]
    #: The part of `stats` that tells of the rows that failed.
    redo: dict[str, StepStats]


class Unsuited(Exception):
    """The result does not hold what tells its rows apart by root row: the job has to run as a whole."""


class Splice:
    """One partition's rows that failed, taken out to be computed, and put back."""

    def __init__(self, graph: Graph, frame: Frame, root: str, base: Base) -> None:
        self._parents = {name: grain.parents for name, grain in graph.grains.items()}
        self._frame, self._root, self._base = frame, root, base
        self._rows = failed_roots(base.failures, base.start)
        self._again = set(self._rows)
        #: Per grain of the frame, the rows that descend from those.
        self._picked = {grain: self._pick(grain) for grain in frame.tables}
        self.frame = self._taken()
        #: Per grain, the place of each old and each fresh row among the merged ones.
        self._places: dict[str, tuple[dict[int, int], dict[int, int]]] = {}

    def tables(self, kept: Mapping[str, tuple[Sequence[str], Sequence[str]]]) -> dict[str, Table]:
        """The whole partition's tables, with these columns and marks, once the steps have run over `frame`."""
        return {grain: self._merged(grain, columns, marks) for grain, (columns, marks) in kept.items()}

    def failures(self, fresh: Iterable[RowFailure]) -> list[RowFailure]:
        """Failures of the rows computed again, numbered as the partition numbers them."""
        found = []
        for failure in fresh:
            first, *rest = failure.row.split("/")
            row = "/".join([str(self._rows[int(first) - self._frame.offset] + self._frame.offset), *rest])
            found.append(msgspec.structs.replace(failure, row=row))
        return found

    def stats(self, fresh: Mapping[str, StepStats]) -> dict[str, StepStats]:
        """Figures of the whole partition; seconds and the row memo tell of this attempt alone."""
        empty = StepStats()
        merged = {}
        for name, stats in fresh.items():
            old, gone = self._base.stats.get(name, empty), self._base.redo.get(name, empty)
            merged[name] = msgspec.structs.replace(
                stats,
                rows_in=old.rows_in - gone.rows_in + stats.rows_in,
                rows_out=old.rows_out - gone.rows_out + stats.rows_out,
                absent=old.absent - gone.absent + stats.absent,
                failed=old.failed - gone.failed + stats.failed,
            )
        return merged

    def _pick(self, grain: str) -> list[int]:
        if not grain:
            return [0]
        try:
            path = self._frame.path(grain, self._root)
        except KeyError:
            raise Unsuited from None
        rows = range(self._frame.tables[grain].n) if path is None else path
        return [row for row, root in enumerate(rows) if root in self._again]

    def _taken(self) -> Frame:
        frame = Frame(self._parents, offset=self._frame.offset)
        places = {grain: {row: place for place, row in enumerate(rows)} for grain, rows in self._picked.items()}
        for grain, table in self._frame.tables.items():
            rows = self._picked[grain]
            above = None
            if table.parent is not None:
                above = [places[self._parents[grain][0]][table.parent[row]] for row in rows]
            part = Table(grain, len(rows), above)
            part.columns = {key: column.take(rows) for key, column in table.columns.items()}
            part.marks = {key: mask and [mask[row] for row in rows] for key, mask in table.marks.items()}
            frame.tables[grain] = part
        return frame

    def _merged(self, grain: str, columns: Sequence[str], marks: Sequence[str]) -> Table:
        old, fresh = self._base.tables[grain], self.frame.tables[grain]
        kept, new = self._place(grain)
        n = len(kept) + len(new)
        source = [0] * n
        for row, place in kept.items():
            source[place] = row
        for row, place in new.items():
            source[place] = old.n + row
        table = Table(grain, n, old.parent)
        if grain not in self._picked:
            above_kept, above_new = self._place(self._parents[grain][0])
            parents = [above_kept.get(row, -1) for row in old.parent or ()] + [above_new[r] for r in fresh.parent or ()]
            table.parent = [parents[row] for row in source] if old.parent is not None else None
        for key in columns:
            one, other = old.columns[key], fresh.columns[key]
            values = take(concat([one.values, other.values]), source)
            table.columns[key] = Column(values, _mask(one.present, old.n, other.present, fresh.n, source))
        for key in marks:
            table.marks[key] = _mask(old.marks[key], old.n, fresh.marks[key], fresh.n, source)
        return table

    def _place(self, grain: str) -> tuple[dict[int, int], dict[int, int]]:
        """Where the rows that stay and the rows that were computed again stand in the merged table."""
        if grain not in self._places:
            if grain in self._picked:
                picked = self._picked[grain]
                stay = set(range(self._frame.tables[grain].n)) - set(picked)
                self._places[grain] = ({row: row for row in stay}, dict(enumerate(picked)))
            else:
                old = [(root, 0, row) for row, root in enumerate(self._old_roots(grain)) if root not in self._again]
                path = self.frame.path(grain, self._root) or ()
                order = sorted([*old, *((self._rows[root], 1, row) for row, root in enumerate(path))])
                places: tuple[dict[int, int], dict[int, int]] = ({}, {})
                for place, (_, which, row) in enumerate(order):
                    places[which][row] = place
                self._places[grain] = places
        return self._places[grain]

    def _old_roots(self, grain: str) -> Sequence[int]:
        """The root row of each row of the result of old."""
        if grain in self._frame.tables:
            path = self._frame.path(grain, self._root)
            return range(self._frame.tables[grain].n) if path is None else path
        table = self._base.tables.get(grain)
        if table is None or table.parent is None:
            raise Unsuited
        above = self._old_roots(self._parents[grain][0])
        return [above[row] for row in table.parent]


def failed_roots(failures: Iterable[RowFailure], start: int) -> list[int]:
    """Root rows of a partition, as it counts them, in which something failed."""
    return sorted({int(failure.row.split("/")[0]) - start for failure in failures})


def stats_of(
    graph: Graph, compiled: Compile, frame: Frame, root: str, steps: Sequence[str], failures: Sequence[RowFailure]
) -> dict[str, StepStats]:
    """The part of a job's figures that tells of the root rows in which something failed; nothing if it is unknown."""
    roots = set(failed_roots(failures, frame.offset))

    def within(grain: str, rows: Iterable[int]) -> int:
        path = frame.path(grain, root)
        return sum((row if path is None else path[row]) in roots for row in rows)

    found = {}
    for name in steps:
        step = graph.steps[name]
        choose: Callable[..., Any] = select_items if step.signature.shape == "collect" else select
        out, mask = frame.tables[step.out], frame.tables[step.out].marks[name]
        try:
            given = within(step.grain, choose(graph, compiled, frame, step)[0])
            made = within(step.out, (row for row in range(out.n) if mask is None or mask[row]))
            every = within(step.grain, range(frame.tables[step.grain].n))
        except KeyError:
            return {}
        failed = sum(failure.step == name for failure in failures)
        found[name] = StepStats(rows_in=given, rows_out=made, absent=every - given, failed=failed)
    return found


def _mask(old: Mask, n_old: int, fresh: Mask, n_fresh: int, source: Sequence[int]) -> Mask:
    if old is None and fresh is None:
        return None
    both = [*(old or [True] * n_old), *(fresh or [True] * n_fresh)]
    mask = [both[row] for row in source]
    return None if all(mask) else mask
