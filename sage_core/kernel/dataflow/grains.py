"""Levels of rows while a graph is being checked: which descend from which, and which is the deepest of several."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from sage_core.common.records import Record
from sage_core.kernel.dataflow.graph import RUN, Grain
from sage_core.kernel.dataflow.spans import Path


class Source(Record):
    """Something a step reads: the grain of its rows, how it was written and where."""

    grain: str
    shown: str
    path: Path


class Grains:
    """The grains opened so far."""

    def __init__(self) -> None:
        self.found: dict[str, Grain] = {RUN: Grain(name=RUN)}

    def open(self, name: str, *parents: str) -> str:
        """Add a grain under its parents."""
        self.found[name] = Grain(name=name, parents=parents)
        return name

    def lineage(self, name: str) -> frozenset[str]:
        """A grain and everything it descends from."""
        seen: set[str] = set()
        front = [name]
        while front:
            grain = front.pop()
            if grain not in seen:
                seen.add(grain)
                front += self.found[grain].parents
        return frozenset(seen)

    def deepest(self, sources: Sequence[Source]) -> str | tuple[Source, Source]:
        """The grain all others are ancestors of (the run without sources), or two that are unrelated."""
        deepest = Source(grain=RUN, shown="", path=())
        for source in sources:
            if source.grain in self.lineage(deepest.grain):
                continue
            if deepest.grain not in self.lineage(source.grain):
                return deepest, source
            deepest = source
        return deepest.grain

    def outside(self, sources: Iterable[Source], grain: str) -> Source | None:
        """The first source whose rows are neither the grain's own nor an ancestor's."""
        lineage = self.lineage(grain)
        return next((source for source in sources if source.grain not in lineage), None)


def called(grain: str) -> str:
    """A grain in a sentence."""
    return f"the rows of {grain!r}" if grain != RUN else "the run"
