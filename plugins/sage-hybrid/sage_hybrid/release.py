"""Part *release*: when an engine may take more, by what its streams show and by what it has to keep free."""

from __future__ import annotations

from sage_core import SECOND, Lane, Place, Work

#: Of the pace between tokens asked for, the share above which an engine takes no more: any work, and batch work.
ANY, BATCH = 0.9, 0.8
#: Batch works an engine holds at most, and the share of its seats, while a lane sees traffic with targets.
MOST, SEATS = 64, 0.75
#: How long after the last such work a lane still counts as seeing them (ns).
RECENT = 30 * SECOND


class Release:
    """Closes engines to new works whose streams are near to missing their pace.

    An engine that holds no work with a pace is never closed by its pace, and one that holds nothing never at all: so
    whatever waits goes on. Batch work is held back earlier. While works with targets come, it also leaves a
    quarter of the seats free, and its prompts go one at a time to an engine, because what is in an engine stays there.

    Sources: HyGen (arXiv 2501.14808) and Chiron (arXiv 2501.08090) for gates by observed latency; QLM (arXiv
    2407.00047) and SkyWalker (arXiv 2505.24095) for keeping the backlog where it can still be reordered.

    Args:
        on: off leaves the manager's credits as the only limit.
        reserve: engines of each lane, the first by name, that are closed to batch work as long as others are up.
    """

    def __init__(self, *, on: bool, reserve: int) -> None:
        self.on = on
        self._reserve = reserve
        self._known: dict[Lane, dict[str, None]] = {}
        self._reserved: dict[Lane, frozenset[str]] = {}
        #: Engine → the batch works it holds.
        self._batch: dict[str, dict[str, None]] = {}
        self._urgent: dict[Lane, int] = {}

    def arrived(self, work: Work, now: int) -> None:
        """Note that works with targets come."""
        if work.service_class != "batch" and (work.deadline is not None or work.tpot is not None):
            self._urgent[work.lane] = now

    def admits(self, work: Work, places: list[Place], now: int, *, floor: bool) -> list[Place]:
        """The places that may take the work; a batch work whose floor is due counts as any other."""
        batch = work.service_class == "batch"
        if batch and self._reserve:
            places = self._unreserved(work.lane, places)
        if not self.on:
            return places
        share = BATCH if batch and not floor else ANY
        found = [place for place in places if not place.tpot or place.itl <= share * place.tpot]
        if batch and work.kind == "generate" and now - self._urgent.get(work.lane, -RECENT) < RECENT:
            found = [place for place in found if self._spare(place, floor=floor)]
        return found

    def sent(self, work: Work, place: Place) -> None:
        """Count a batch work in."""
        if work.service_class == "batch":
            self._batch.setdefault(place.engine, {})[work.id] = None

    def ended(self, work: Work, engine: str) -> None:
        """Count it out."""
        self._batch.get(engine, {}).pop(work.id, None)

    def up(self, engine: str, lane: Lane) -> None:
        """An engine joined."""
        known = self._known.setdefault(lane, {})
        if engine not in known:
            known[engine] = None
            self._reserved[lane] = frozenset(sorted(known)[: min(self._reserve, len(known) - 1)])

    def down(self, engine: str, lane: Lane) -> None:
        """An engine left."""
        self._batch.pop(engine, None)
        known = self._known.get(lane, {})
        if known.pop(engine, 0) is None:
            self._reserved[lane] = frozenset(sorted(known)[: max(0, min(self._reserve, len(known) - 1))])

    def _unreserved(self, lane: Lane, places: list[Place]) -> list[Place]:
        # A policy that takes over is not told of the engines that are up: it learns them where they are open.
        for place in places:
            self.up(place.engine, lane)
        reserved = self._reserved.get(lane, frozenset())
        return [place for place in places if place.engine not in reserved]

    def _spare(self, place: Place, *, floor: bool) -> bool:
        if not place.running:
            return True
        held = len(self._batch.get(place.engine, ()))
        if held >= MOST or (place.seats and held >= SEATS * place.seats):
            return False
        return floor or not place.prefill
