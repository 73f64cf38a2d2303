"""What the whole control plane takes for a decision, an arrival and an end, with many engines and a long queue."""

from __future__ import annotations

import gc
import random
from collections.abc import Sequence
from time import thread_time_ns
from typing import Any

import msgspec

from sage_bench.results import Figure, Measured
from sage_bench.suite import Bench
from sage_core import Capacity, Decision, Dispatch, Event, Fleet, Scheduler, Verdict, Work
from sage_core.testing import BatchingModel, Call, Simulation, percentile, schedulers_named, selector_named

#: Works an engine holds at once: few, so that most of the run is spent with full engines.
SEATS = 16
#: Bytes of a token, and of a prompt's block whose digest is taken; blocks that the prompts of a tenant share.
BYTES, BLOCK, SHARED = 4, 512, 2
#: Kind of step or span → where its times go.
Spans = dict[str, list[int]]


class Asked:
    """A scheduler that notes when the manager asks it, so that what it does between two questions can be told."""

    def __init__(self, inner: Scheduler, spans: list[int]) -> None:
        self._inner = inner
        self._spans = spans
        self._since = 0

    def submit(self, work: Work, fleet: Fleet, now: int) -> Verdict:
        """Pass on."""
        return self._inner.submit(work, fleet, now)

    def next(self, fleet: Fleet, now: int) -> Decision:
        """Pass on; a dispatch begins a span, and the next question ends it."""
        start = thread_time_ns()
        self.end(start)
        decision = self._inner.next(fleet, now)
        if isinstance(decision, Dispatch):
            self._since = start
        return decision

    def observe(self, event: Event, now: int) -> None:
        """Pass on."""
        self._inner.observe(event, now)

    def end(self, at: int) -> None:
        """End a span that is open."""
        if self._since:
            self._spans.append(at - self._since)
            self._since = 0


class Watched(Simulation):
    """Times each step of the manager and each decision in it."""

    def __init__(self, scheduler: str, selector: str, engines: int) -> None:
        self.spans: Spans = {"decision": [], "sent": [], "submit": [], "end": [], "all": []}
        self._make = schedulers_named(scheduler)
        self._asked: list[Asked] = []
        model = BatchingModel(capacity=Capacity(sequences=SEATS, prefill_tokens=4_096, kv_tokens=100_000))
        super().__init__(self._scheduler, [model] * engines, selector=selector_named(selector))

    def _scheduler(self, name: str) -> Scheduler:
        self._asked.append(Asked(self._make(name), self.spans["decision"]))
        return self._asked[-1]

    def step(self, inputs: Sequence[Any], at: int) -> list[Any]:
        """Time it."""
        start = thread_time_ns()
        actions = super().step(inputs, at)
        end = thread_time_ns()
        for each in self._asked:
            each.end(end)
        spent, sent = end - start, sum(_is(action, "dispatch_one") for action in actions)
        self.spans["all"].append(spent)
        if sent == 1:
            self.spans["sent"].append(spent)
        if len(inputs) == 1:
            if _is(inputs[0], "submitted") and not sent:
                self.spans["submit"].append(spent)
            elif _is(inputs[0], "completed"):
                self.spans["end"].append(spent)
        return actions


#: What is told of each kind of span; the aim holds for decisions.
TITLES = {
    "decision": "a decision",
    "sent": "steps with one dispatch",
    "submit": "steps of one arrival that waits",
    "end": "steps of one end",
}


class ControlPlane(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Serves a long queue on many engines; a repeat is the same run again, and each span counts at its quickest."""

    #: Scheduler and node selector.
    policies: tuple[tuple[str, str], ...]
    tenants: int
    engines: int = 64
    queued: int = 10_000
    #: Seconds of virtual time, and arrivals a second: about as many as end, so that the queue stays as long.
    seconds: float = 3.0
    rate: float = 500.0

    def measure(self, bench: Bench) -> Measured:
        """Medians and 99th percentiles of decisions and of whole steps, and what a request costs from end to end."""
        figures: list[Figure] = []
        waiting: dict[str, int] = {}
        for scheduler, selector in self.policies:
            name = f"{scheduler}, {selector}"
            runs = [self._run(scheduler, selector, bench.seed) for _ in range(bench.repeat)]
            waiting[name] = sum(len(pool.line) for pool in runs[0].manager.pools.values())
            # The same spans in the same order: the least of each is the one that nobody interrupted.
            spans = {
                kind: [min(spent) / 1e3 for spent in zip(*(run.spans[kind] for run in runs), strict=True)]
                for kind in runs[0].spans
            }
            for kind, title in TITLES.items():
                aim = 100.0 if kind == "decision" else None
                figures.append(_figure(f"{name}, {title}, median", percentile(spans[kind], 0.5)))
                figures.append(_figure(f"{name}, {title}, p99", percentile(spans[kind], 0.99), aim))
            whole = sum(spans["all"]) / len(runs[0].answers)
            figures.append(_figure(f"{name}, all steps, by request that ended", whole))
        facts = {"engines": self.engines, "queued": self.queued, "tenants": self.tenants, "runs": bench.repeat}
        return Measured(figures=tuple(figures), facts={**facts, "waiting_at_the_end": waiting})

    def _run(self, scheduler: str, selector: str, seed: int) -> Watched:
        simulation = Watched(scheduler, selector, self.engines)
        simulation.submit(self._calls(seed))
        gc.collect()
        # What the benchmark itself has made is no part of the control plane's heap.
        gc.freeze()
        simulation.run(self.seconds)
        gc.unfreeze()
        if simulation.manager.faults:
            raise RuntimeError(f"{scheduler}, {selector}: {simulation.manager.faults}")
        return simulation

    def _calls(self, seed: int) -> list[Call]:
        rng = random.Random(seed)
        found = []
        at_once = self.queued + self.engines * SEATS
        for number in range(at_once + int(self.rate * self.seconds)):
            batch = rng.random() < 0.5
            tenant = rng.randrange(self.tenants)
            tokens_in = min(4_000, 1 + int(rng.lognormvariate(6, 1)))
            blocks = min(64, tokens_in * BYTES // BLOCK)
            found.append(
                Call(
                    id=f"c{number}",
                    at=0.0 if number < at_once else (number - at_once) / self.rate,
                    tenant=f"t{tenant}",
                    service_class="batch" if batch else "interactive",
                    ttft=None if batch else rng.choice((0.5, 2.0, 20.0, 60.0)),
                    tpot=None if batch else 0.1,
                    tokens_in=tokens_in,
                    tokens_out=min(800, 2 + int(rng.lognormvariate(5, 0.7))),
                    # A tenant's prompts begin alike, and go on each in its own way.
                    prefix=tuple((tenant + 1) * 100 + b if b < SHARED else number << 16 | b for b in range(blocks)),
                )
            )
        return found


def _figure(name: str, value: float, aim: float | None = None) -> Figure:
    return Figure(name=name, unit="µs", values=(value,), better="lower", aim=aim, over="runs")


def _is(record: Any, tag: str) -> bool:
    return bool(record.__struct_config__.tag == tag)
