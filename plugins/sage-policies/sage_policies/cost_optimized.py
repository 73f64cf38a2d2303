"""The cheapest engine that still meets the deadline."""

from __future__ import annotations

import heapq

from sage_core import SECOND, Fleet, Place, Work
from sage_policies.lanes import LaneScheduler

#: Of many places, those that are looked at beside the least loaded of each price: the cheapest, of equal ones the least
#: loaded.
LOOKED_AT = 8


class CostOptimized(LaneScheduler):
    """Orders by arrival, and sends each work where it costs least: the engine's price an hour times its engine-seconds.

    Only places that meet the work's deadline and its pace between tokens count; where none does, the soonest is taken.
    A work never waits for a cheaper engine while another one is free.

    Good: engines of different prices below their capacity, above all CPUs beside GPUs: bulk goes where a token is
    cheap. Loses: at saturation every engine is busy and the order is FIFO; packing the cheap engine makes its streams
    slower than an even spread, up to the pace that was asked for.

    Source: `Mélange` (arXiv 2404.14527) for cost per request on engines of several kinds; PolyServe (arXiv 2507.17769)
    for the choice among those that still meet the target.
    """

    def place(self, work: Work, places: list[Place], fleet: Fleet, now: int) -> Place | None:
        """The cheapest of the places in time, or the soonest."""
        if len(places) > LOOKED_AT:
            places = _likeliest(places)
        soon = {place.engine: _seconds(work, place, fleet) for place in places}
        timely = [place for place in places if _meets(work, place, soon[place.engine], fleet, now)]
        if timely:
            best = min(timely, key=lambda place: (place.price * fleet.cost(work, place), soon[place.engine]))
        else:
            best = min(places, key=lambda place: (soon[place.engine], place.load))
        # The configured filters have the last word; with one place to choose from they choose nothing else.
        return fleet.pick(work, [best])


def _likeliest(places: list[Place]) -> list[Place]:
    # However many cheap engines there are, the quicker ones must not be overlooked.
    cheapest = heapq.nsmallest(LOOKED_AT, places, key=lambda place: (place.price, place.load))
    least: dict[float, Place] = {}
    for place in places:
        if place.price not in least or place.load < least[place.price].load:
            least[place.price] = place
    return list({place.engine: place for place in (*cheapest, *least.values())}.values())


def _seconds(work: Work, place: Place, fleet: Fleet) -> float:
    return fleet.ttft(work, place) if work.kind == "generate" else place.load + fleet.cost(work, place)


def _meets(work: Work, place: Place, seconds: float, fleet: Fleet, now: int) -> bool:
    if work.deadline is not None and now + seconds * SECOND > work.deadline:
        return False
    return work.tpot is None or work.kind != "generate" or fleet.tpot(work, place) * SECOND <= work.tpot
