"""What a policy's calls cost with many engines and a long queue."""

from __future__ import annotations

import gc
import random
from time import thread_time_ns

import msgspec

from sage_bench.results import Figure, Measured
from sage_bench.suite import Bench
from sage_core import Capacity, Decision, Dispatch, Event, Fleet, Scheduler, Verdict, Work
from sage_core.testing import BatchingModel, Call, Simulation, percentile, schedulers_named

#: Works an engine holds at once: few, so that most of the run is spent with full engines.
SEATS = 16


class Timed:
    """A scheduler with a stopwatch: the processor time of each call, in order."""

    def __init__(self, inner: Scheduler) -> None:
        self._inner = inner
        self.spent: list[int] = []
        #: Which of them were dispatches.
        self.sent: list[int] = []

    def submit(self, work: Work, fleet: Fleet, now: int) -> Verdict:
        """Pass on."""
        start = thread_time_ns()
        verdict = self._inner.submit(work, fleet, now)
        self.spent.append(thread_time_ns() - start)
        return verdict

    def next(self, fleet: Fleet, now: int) -> Decision:
        """Pass on."""
        start = thread_time_ns()
        decision = self._inner.next(fleet, now)
        if isinstance(decision, Dispatch):
            self.sent.append(len(self.spent))
        self.spent.append(thread_time_ns() - start)
        return decision

    def observe(self, event: Event, now: int) -> None:
        """Pass on."""
        start = thread_time_ns()
        self._inner.observe(event, now)
        self.spent.append(thread_time_ns() - start)


class Decisions(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Serves a long queue on many engines; a repeat is the same run again, and each call counts at its quickest."""

    schedulers: tuple[str, ...]
    tenants: int
    engines: int = 64
    queued: int = 10_000
    #: Seconds of virtual time.
    seconds: float = 3.0

    def measure(self, bench: Bench) -> Measured:
        """The 99th percentile of all calls, and of the costliest kind of call there is: a dispatch."""
        figures = []
        for name in self.schedulers:
            runs = [self._run(name, bench.seed) for _ in range(bench.repeat)]
            # The same calls in the same order: the least of each is the one that nobody interrupted.
            quickest = [min(spent) / 1e3 for spent in zip(*(run.spent for run in runs), strict=True)]
            sent = [quickest[number] for number in runs[0].sent]
            for title, values in (("all calls", quickest), ("dispatches", sent)):
                for share, what in ((0.5, "median"), (0.99, "p99")):
                    aim = 100.0 if share > 0.5 else None
                    figures.append(
                        Figure(
                            name=f"{name}, {title}, {what}",
                            unit="µs",
                            values=(percentile(values, share),),
                            better="lower",
                            aim=aim,
                            over="runs",
                        )
                    )
        facts = {"engines": self.engines, "queued": self.queued, "tenants": self.tenants, "runs": bench.repeat}
        return Measured(figures=tuple(figures), facts=facts)

    def _run(self, name: str, seed: int) -> Timed:
        make, made = schedulers_named(name), list[Timed]()

        def timed(asked: str) -> Timed:
            made.append(Timed(make(asked)))
            return made[-1]

        model = BatchingModel(capacity=Capacity(sequences=SEATS, prefill_tokens=4_096, kv_tokens=100_000))
        simulation = Simulation(timed, [model] * self.engines)
        simulation.submit(self._calls(seed))
        gc.collect()
        # What the benchmark itself has made is no part of a policy's heap.
        gc.freeze()
        simulation.run(self.seconds)
        gc.unfreeze()
        return made[-1]

    def _calls(self, seed: int) -> list[Call]:
        rng = random.Random(seed)
        found = []
        at_once = self.queued + self.engines * SEATS
        for number in range(at_once + int(500 * self.seconds)):
            batch = rng.random() < 0.5
            found.append(
                Call(
                    id=f"c{number}",
                    at=0.0 if number < at_once else (number - at_once) / 500,
                    tenant=f"t{rng.randrange(self.tenants)}",
                    service_class="batch" if batch else "interactive",
                    ttft=None if batch else rng.choice((0.5, 2.0, 20.0, 60.0)),
                    tpot=None if batch else 0.1,
                    tokens_in=min(4_000, 1 + int(rng.lognormvariate(6, 1))),
                    tokens_out=min(800, 2 + int(rng.lognormvariate(5, 0.7))),
                )
            )
        return found
