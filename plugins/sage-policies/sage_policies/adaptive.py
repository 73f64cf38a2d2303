"""Two orders, and a stated rule that chooses between them by what is observed."""

from __future__ import annotations

from sage_core import Fleet, Lane, Work, WorkHeap
from sage_policies.lanes import LaneScheduler, Queue


class Adaptive(LaneScheduler):
    """Orders by arrival while a lane keeps up, and the shortest first while it does not.

    The rule: a lane's predicted wait is its queued engine-seconds divided by those it finishes each second. Above
    `high` seconds it changes to the shortest first, below `low` back to the order of arrival; in between it stays as it
    is, so that it does not waver. What has waited for `aging` seconds goes first in either order.

    Good: traffic that is calm most of the time and has short bursts: nobody is overtaken without need, and a burst is
    over for most callers before its long works are done. Loses: under lasting overload it is `sjf` with its unfairness
    to long works; it knows neither deadlines nor tenants; the change comes a burst's first seconds late.

    Source: the change of order by load is the idea of gamma-Boost (Yu and Scully, 2024; UniBoost, arXiv 2606.18431),
    whose one parameter slides from the order of arrival to the shortest first; here with two positions and hysteresis.
    """

    def __init__(self, *, high: float = 2.0, low: float = 0.5, aging: float = 30.0) -> None:
        super().__init__(aging=aging)
        self._high, self._low = high, low
        #: Lanes that do not keep up.
        self._strained: dict[Lane, None] = {}

    def rank(self, work: Work) -> float:
        return work.cost

    def order(self, queue: Queue, lane: Lane, fleet: Fleet, now: int) -> WorkHeap:
        """The queue by size while the lane is strained."""
        drain = fleet.drain(lane)
        if drain > 0.0:
            wait = queue.cost / drain
            if wait > self._high:
                self._strained[lane] = None
            elif wait < self._low:
                self._strained.pop(lane, None)
        return super().order(queue, lane, fleet, now) if lane in self._strained else queue.arrived

    def why(self, queue: Queue, heap: WorkHeap) -> str:
        return "by arrival" if heap is queue.arrived else "shortest first"
