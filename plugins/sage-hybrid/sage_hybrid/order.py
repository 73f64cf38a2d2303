"""Part *order*: the earliest deadline first, the doomed behind the feasible, optionally the small a little earlier."""

from __future__ import annotations

import math

from sage_core import SECOND, Fleet, Place, ServiceClass, Work

#: Seconds after arrival at which a work without a deadline stands, by class; a batch work's is the aging bound.
LOOSE: dict[ServiceClass, float] = {"interactive": 2.0, "standard": 10.0}


class Order:
    """Ranks the works of one class.

    A work that cannot meet its deadline any more is *late*: it stands where one stands whose deadline is `aging`
    seconds after its arrival. So it is behind all that can be met, and only works that arrive within `aging` overtake
    it.

    Sources: Liu and Layland (1973) for the order; Niyama (arXiv 2503.22562) for the relegation; gamma-Boost (Yu and
    Scully, 2024; arXiv 2606.18431) for the head start by size.

    Args:
        on: off ranks by arrival.
        aging: seconds.
        boost: gamma in 1/s: the head start is ln(1 / (1 - exp(-gamma * cost))) / gamma; 0 gives none.
    """

    def __init__(self, *, on: bool, aging: float, boost: float) -> None:
        self.on = on
        self._aging = round(aging * SECOND)
        self._boost = boost

    def rank(self, work: Work, late: bool) -> float:
        """The work's place in its class: smaller goes first."""
        if not self.on:
            return float(work.arrival)
        patient = work.arrival + self._aging
        if late:
            return float(max(patient, work.deadline or 0))
        if work.deadline is not None:
            rank = work.deadline
        elif work.service_class in LOOSE:
            rank = min(patient, work.arrival + round(LOOSE[work.service_class] * SECOND))
        else:
            rank = patient
        return float(rank) - self._head_start(work)

    def lost(self, work: Work, now: int) -> bool:
        """Whether a deadline has passed already."""
        return self.on and work.deadline is not None and work.deadline <= now

    def doomed(self, work: Work, place: Place, fleet: Fleet, now: int) -> bool:
        """Whether the deadline is missed even if the work is sent there now."""
        if not self.on or work.deadline is None:
            return False
        seconds = fleet.ttft(work, place) if work.kind == "generate" else fleet.cost(work, place)
        return now + seconds * SECOND > work.deadline

    def _head_start(self, work: Work) -> float:
        if not self._boost or work.cost <= 0.0:
            return 0.0
        seconds = -math.log(-math.expm1(-self._boost * work.cost)) / self._boost
        return min(seconds * SECOND, float(self._aging))
