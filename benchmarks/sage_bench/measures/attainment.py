"""How many calls each policy answers within their targets, on one workload."""

from __future__ import annotations

from typing import Literal

import msgspec

from sage_bench.results import Figure, Measured
from sage_bench.suite import Bench
from sage_bench.traffic import WORKLOADS, attainment, serve

#: What is compared where a case names nothing else: scheduler and selector.
POLICIES = (
    ("fifo", ""),
    ("fifo", "lmetric"),
    ("slo_aware", "lmetric"),
    ("sjf", "lmetric"),
    ("vtc", "lmetric"),
    ("hybrid", ""),
)


class Attainment(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Serves a workload under several policies, on modelled engines, one seed a repeat."""

    workload: Literal["chat", "chat-beside-batch", "code", "two-deadlines", "loud-tenant"]
    rate: float
    seconds: float = 20.0
    policies: tuple[tuple[str, str], ...] = POLICIES

    def measure(self, bench: Bench) -> Measured:
        """The least attainment over the kinds of calls with targets, of all that were issued."""
        figures = []
        for scheduler, selector in self.policies:
            values = []
            for seed in range(bench.seed, bench.seed + bench.repeat):
                calls = WORKLOADS[self.workload](seed, self.rate, self.seconds)
                values.append(attainment(serve(calls, scheduler, selector).answers))
            name = f"{scheduler} + {selector}" if selector else scheduler
            figures.append(
                Figure(name=name, unit="share", values=tuple(values), statistic="mean", better="higher", over="seeds")
            )
        return Measured(figures=tuple(figures), facts={"workload": self.workload, "rate": self.rate})
