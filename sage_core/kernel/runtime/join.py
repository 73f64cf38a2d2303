"""Matches the rows of two lineages: a hash join that keeps the left side's order."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sage_core.kernel.dataflow.graph import Step
from sage_core.kernel.runtime import table as tables
from sage_core.kernel.runtime.table import Column, Frame, Table


def joined(step: Step, left: Sequence[Frame], right: Sequence[Frame], carried: Mapping[str, str]) -> Table:
    """The join's table.

    Args:
        left, right: frames of each side, in partition order.
        carried: columns to take along → the side (``left`` or ``right``) they come from.
    """
    assert step.join is not None
    join = step.join
    sides = {"left": left, "right": right}
    grains = {"left": _grain(left, join.left), "right": _grain(right, join.right)}
    keys = {
        side: list(
            zip(*(_whole(sides[side], grains[side], f"{ref.step}.{ref.column}").values for ref in refs), strict=True)
        )
        for side, refs in (("left", [pair[0] for pair in join.on]), ("right", [pair[1] for pair in join.on]))
    }
    present = {
        side: _present(sides[side], grains[side], name) for side, name in (("left", join.left), ("right", join.right))
    }
    places: dict[Any, list[int]] = {}
    for row, key in enumerate(keys["right"]):
        # A null key matches nothing, not even another null.
        if present["right"][row] and None not in key:
            places.setdefault(key, []).append(row)
    pairs: list[tuple[int, int]] = []
    for row, key in enumerate(keys["left"]):
        if not present["left"][row]:
            continue
        matches = [] if None in key else places.get(key, [])
        if matches:
            pairs += [(row, match) for match in matches]
        elif join.how == "left":
            pairs.append((row, -1))
    table = Table(step.out, len(pairs))
    matched = [match >= 0 for _, match in pairs]
    for column, side in carried.items():
        whole = _whole(sides[side], grains[side], column)
        rows = [pair[0] if side == "left" else max(pair[1], 0) for pair in pairs]
        if side == "right" and not len(whole.values):
            table.columns[column] = Column([None] * len(pairs), [False] * len(pairs) or None)
            continue
        taken = whole.take(rows)
        if side == "right" and not all(matched):
            taken = Column(taken.values, tables.both(taken.present, matched))
        table.columns[column] = taken
    table.marks[step.name] = None
    return table


def _grain(frames: Sequence[Frame], step: str) -> str:
    for frame in frames:
        for name, table in frame.tables.items():
            if step in table.marks:
                return name
    return step


def _whole(frames: Sequence[Frame], grain: str, column: str) -> Column:
    parts = [frame.column(grain, column) for frame in frames]
    values = tables.concat([part.values for part in parts]) if parts else []
    if all(part.present is None for part in parts):
        return Column(values)
    present = [
        here
        for frame, part in zip(frames, parts, strict=True)
        for here in part.present or [True] * frame.tables[grain].n
    ]
    return Column(values, present)


def _present(frames: Sequence[Frame], grain: str, step: str) -> list[bool]:
    return [here for frame in frames for here in frame.mark(grain, step) or [True] * frame.tables[grain].n]
