"""Levels of rows while a graph is being checked: which descend from which, and which is the deepest of several."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from sage_core.common.records import Record
from sage_core.kernel.dataflow.graph import RUN, Grain, lineage
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
        return frozenset(lineage(self.found, name))

    def deepest(self, sources: Sequence[Source]) -> str | tuple[Source, Source]:
        """The grain all others are ancestors of (the run without sources), or two that are unrelated."""
        lineages = {source.grain: self.lineage(source.grain) for source in sources}
        for grain, above in lineages.items():
            if all(other in above for other in lineages):
                return grain
        for index, two in enumerate(sources):
            for one in sources[:index]:
                if one.grain not in lineages[two.grain] and two.grain not in lineages[one.grain]:
                    return one, two
        return RUN

    def below(self, *grains: str) -> str | None:
        """A grain that descends from all of these: a join that brings them together."""
        return next((name for name in self.found if set(grains) <= self.lineage(name)), None)

    def joined(self, grain: str, above: str) -> str:
        """The first join on the way from a grain up to one it descends from; "" without any."""
        while grain not in (above, RUN):
            parents = self.found[grain].parents
            if len(parents) > 1:
                return grain
            (grain,) = parents
        return ""

    def outside(self, sources: Iterable[Source], grain: str) -> Source | None:
        """The first source whose rows are neither the grain's own nor an ancestor's."""
        above = self.lineage(grain)
        return next((source for source in sources if source.grain not in above), None)


def called(grain: str) -> str:
    """A grain in a sentence."""
    return f"the rows of {grain!r}" if grain != RUN else "the run"
