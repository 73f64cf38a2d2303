"""Part *place*: which of the engines that may take a work gets it."""

from __future__ import annotations

import heapq

from sage_core import Fleet, Place, Work

#: Of many places, those that are asked how soon they answer.
LOOKED_AT = 8


class Placing:
    """Chats by new prompt tokens times batch, bulk where most runs already, embeddings by time or by price.

    - A chat goes to the engine with the least product of the prompt tokens waiting there, its own uncached ones
      included, and the works it would join; where that would miss the deadline, to the one that answers first.
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

    def choose(self, work: Work, places: list[Place], fleet: Fleet) -> Place | None:
        """The best of the places; None where the part is off and the configured selector rules them out."""
        if not self.on:
            return fleet.pick(work, places)
        if len(places) == 1:
            return places[0]
        batch = work.service_class == "batch"
        if work.kind != "generate":
            return min(places, key=lambda place: _priced(work, place, fleet, batch))
        if batch:
            return max(places, key=lambda place: (place.running, -place.load))
        tokens = work.tokens_in
        if not work.prefix:
            return min(places, key=lambda place: ((place.prefill + tokens) * (place.running + 1), place.load))
        new = {place.engine: max(1, tokens - fleet.cached(work, place)) for place in places}
        return min(places, key=lambda place: ((place.prefill + new[place.engine]) * (place.running + 1), place.load))

    def soonest(self, work: Work, places: list[Place], fleet: Fleet) -> Place:
        """Of the likeliest places the one that answers first: for a work that the best place would make late."""
        if work.kind != "generate":
            return min(places, key=lambda place: place.load + fleet.cost(work, place))
        if len(places) > LOOKED_AT:
            places = heapq.nsmallest(LOOKED_AT, places, key=lambda place: place.prefill)
        return min(places, key=lambda place: fleet.ttft(work, place))

    def confirm(self, work: Work, place: Place, fleet: Fleet) -> Place | None:
        """The place, unless the configured filters rule it out: with one to choose from, the selector's scorers are
        not heard."""
        return fleet.pick(work, [place]) if self.on else place


def _priced(work: Work, place: Place, fleet: Fleet, batch: bool) -> tuple[float, float]:
    cost = fleet.cost(work, place)
    return (cost * place.price, place.load) if batch else (place.load + cost, cost * place.price)
