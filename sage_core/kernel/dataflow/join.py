"""``use = "join"``: two sides, the columns that must be equal, and the grain with two parents that comes of it."""

from __future__ import annotations

import msgspec

from sage_core.common.errors import BadValue
from sage_core.kernel.dataflow import layout, references, types
from sage_core.kernel.dataflow.columns import Columns, Found
from sage_core.kernel.dataflow.diagnostics import Problems, one_of
from sage_core.kernel.dataflow.draft import Draft
from sage_core.kernel.dataflow.grains import Grains, Source
from sage_core.kernel.dataflow.graph import RUN, Join, Ref
from sage_core.kernel.dataflow.keys import kind
from sage_core.kernel.dataflow.settings import Settings
from sage_core.kernel.dataflow.spans import Path


def read(draft: Draft) -> None:
    """Read the keys that only a join has into the draft."""
    settings = draft.settings
    sides = settings.section("in")
    sides.only(layout.SIDES, "the sides of a join")
    rows: list[tuple[str, Path]] = []
    for side, name in sides.values(layout.SIDES, "a join").items():
        if "." in name or name.endswith("?"):
            sides.add(side, f"a join takes a step's rows, not the column {name!r}", f'write "{name.partition(".")[0]}"')
        elif name:
            rows.append((name, (*sides.path, side)))
    # Both or none: which side a single one is cannot be told from its place in the list.
    draft.rows = tuple(rows) if len(rows) == 2 else ()
    if "on" in settings:
        draft.on = tuple(_pairs(settings))


def _pairs(settings: Settings) -> list[tuple[Ref, Ref, Path]]:
    given, path = settings.table["on"], (*settings.path, "on")
    if isinstance(given, dict):
        pairs: list[tuple[object, object, Path]] = [(left, right, (*path, left)) for left, right in given.items()]
    elif isinstance(given, list) and all(isinstance(pair, list) and len(pair) == 2 for pair in given):
        pairs = [(left, right, (*path, index)) for index, (left, right) in enumerate(given)]
    else:
        settings.add("on", f"'on' takes pairs of columns, not {kind(given)}", layout.PAIRS)
        return []
    if not pairs:
        settings.add("on", "'on' names no columns", layout.PAIRS)
    found = []
    for left, right, place in pairs:
        if isinstance(right, dict):
            settings.problems.add(place, "a column with a dot in its name is quoted in 'on'", layout.PAIRS, "key")
            continue
        try:
            ends = [references.parse(end) if isinstance(end, str) else None for end in (left, right)]
        except BadValue as error:
            settings.problems.bad(place, error)
            continue
        if ends[0] is None or ends[1] is None:
            settings.problems.add(place, f"'on' takes pairs of columns, not {kind(right)}", layout.PAIRS)
        else:
            found.append((ends[0], ends[1], place))
    return found


class JoinCheck:
    """Checks one join against what is known of its sides."""

    def __init__(self, draft: Draft, columns: Columns, grains: Grains, problems: Problems) -> None:
        self._draft, self._columns, self._grains, self._problems = draft, columns, grains, problems

    def resolve(self) -> tuple[Join, str] | None:
        """The join and its grain; None when something is wrong or a side is unknown."""
        sides = [self._columns.rows(name, path) for name, path in self._draft.rows]
        pairs = [(self._pair(left, right, path), path) for left, right, path in self._draft.on]
        if len(sides) != 2 or sides[0] is None or sides[1] is None:
            return None
        left, right = sides[0], sides[1]
        if not self._related(left, right):
            return None
        on = []
        for pair, path in pairs:
            if pair and (sided := self._sided(*pair, path, left, right)):
                on.append(sided)
                self._comparable(*pair, path)
        join = Join(left=left.shown, right=right.shown, on=tuple(on), how=self._draft.how)
        return join, self._grains.open(self._draft.name, left.grain, right.grain)

    def _related(self, left: Source, right: Source) -> bool:
        for side in (left, right):
            if side.grain == RUN:
                message = f"{side.shown!r} is one value of the run; a join takes rows"
                self._problems.add(side.path, message, "a step reads values of the run beside any rows, without a join")
                return False
        shared = (self._grains.lineage(left.grain) & self._grains.lineage(right.grain)) - {RUN}
        if not shared:
            return True
        # The deepest shared one says most.
        name = max(shared, key=lambda grain: len(self._grains.lineage(grain)))
        message = f"{left.shown!r} and {right.shown!r} both come from the rows of {name!r}, so they cannot be joined"
        if left.grain in shared or right.grain in shared:
            help = "one descends from the other: a step can read the columns of both without a join"
        else:
            help = f'collect one side with per = "{name}", and read it beside the other'
        self._problems.add(right.path, message, help)
        return False

    def _pair(self, left: Ref, right: Ref, path: Path) -> tuple[Found, Found] | None:
        ends = [self._columns.find(ref, path) for ref in (left, right)]
        for ref in (left, right):
            if ref.optional:
                self._problems.add(path, f"{references.show(ref)!r}: a null key matches nothing", "leave the ? out")
        return (ends[0], ends[1]) if ends[0] and ends[1] else None

    def _sided(self, one: Found, two: Found, path: Path, left: Source, right: Source) -> tuple[Ref, Ref] | None:
        """The pair as (left, right), whichever way round it was written."""
        if one.grain is None or two.grain is None:
            return None
        lineages = [self._grains.lineage(side.grain) - {RUN} for side in (left, right)]
        if one.grain in lineages[0] and two.grain in lineages[1]:
            return one.ref, two.ref
        if one.grain in lineages[1] and two.grain in lineages[0]:
            return two.ref, one.ref
        stray = next((end for end in (one, two) if end.grain not in lineages[0] | lineages[1]), None)
        if stray is not None:
            message = f"{references.show(stray.ref)!r} is a column of neither {left.shown!r} nor {right.shown!r}"
        else:
            message = f"{references.show(one.ref)!r} and {references.show(two.ref)!r} are columns of the same side"
        self._problems.add(path, message, f"one column of {left.shown!r}, one of {right.shown!r}")
        return None

    def _comparable(self, one: Found, two: Found, path: Path) -> None:
        if one.type is None or two.type is None:
            return
        kinds = [msgspec.structs.replace(end.type, optional=False) for end in (one, two) if end.type]
        for end, key in zip((one, two), kinds, strict=True):
            if key.kind in ("vector", "artifact", "record", "dict", "list"):
                made = types.show(key) if end.ref.column else "a record of all its columns"
                message = f"{references.show(end.ref)!r} is {made} and cannot be a key"
                self._problems.add(path, message, one_of("", ("str", "int", "bool", "float"), "keys"))
                return
        if not types.assignable(kinds[0], kinds[1]) and not types.assignable(kinds[1], kinds[0]):
            shown = [f"{references.show(end.ref)!r} is {types.show(end.type)}" for end in (one, two) if end.type]
            self._problems.add(path, f"{shown[0]}, but {shown[1]}: they can never be equal")
