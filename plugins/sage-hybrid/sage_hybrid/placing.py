"""Part *place*: which of the engines that may take a work gets it."""

from __future__ import annotations

from sage_core import SECOND, Fleet, Place, Work


class Placing:
    """Chats by new prompt tokens times batch, bulk where most runs already, embeddings by time or by price.

    - A chat goes to the engine with the least product of the prompt tokens waiting there, its own uncached ones
      included, and the works it would join; an engine kept for its cache that would miss the deadline is passed.
    - Batch work is packed on the engine that holds most and may take more: that leaves the others to those in a hurry.
    - Embeddings and rerankings in a hurry go where they end soonest; in bulk, where they cost least, so that bulk
      fills the gaps of fast engines and queries find the slow but cheap ones free.

    Sources: LMetric (OSDI 2026, arXiv 2603.15202) for chats; PolyServe (arXiv 2507.17769) for packing; Dynamo's
    device-aware weights for engines of several kinds.

    Args:
        on: off leaves the choice to the configured selector.
    """

    def __init__(self, *, on: bool) -> None:
        self.on = on

    def choose(self, work: Work, places: list[Place], fleet: Fleet, now: int) -> Place | None:
        """One of the places, or None where the configured filters rule them out."""
        if not self.on:
            return fleet.pick(work, places)
        batch = work.service_class == "batch"
        if work.kind != "generate":
            best = min(places, key=lambda place: _priced(work, place, fleet, batch))
        elif batch:
            best = max(places, key=lambda place: (place.running, -place.load))
        else:
            best = self._quickest(work, places, fleet, now)
        # With one place to choose from, the selector's filters have the last word, and its scorers none.
        return fleet.pick(work, [best])

    def _quickest(self, work: Work, places: list[Place], fleet: Fleet, now: int) -> Place:
        tokens = work.tokens_in
        if not work.prefix:
            return min(places, key=lambda place: ((place.prefill + tokens) * (place.running + 1), place.load))
        new = {place.engine: max(1, tokens - fleet.cached(work, place)) for place in places}
        best = min(places, key=lambda place: ((place.prefill + new[place.engine]) * (place.running + 1), place.load))
        if work.deadline is not None and now + fleet.ttft(work, best) * SECOND > work.deadline:
            return min(places, key=lambda place: place.prefill + new[place.engine])
        return best


def _priced(work: Work, place: Place, fleet: Fleet, batch: bool) -> tuple[float, float]:
    cost = fleet.cost(work, place)
    return (cost * place.price, place.load) if batch else (place.load + cost, cost * place.price)
