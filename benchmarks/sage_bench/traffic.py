"""The workloads on which policies are compared, and how one of them is run over modelled engines."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from sage_core.testing import Answer, BatchingModel, Call, Simulation, arrivals, schedulers_named, selector_named

#: Engines of each run: four that are near to a model of 8 billion parameters on an H100.
ENGINES = 4


def _chat(seed: int, rate: float, seconds: float) -> list[Call]:
    return arrivals("chat", rate, seconds, seed=seed, ttft=0.5, tpot=0.03)


def _beside_batch(seed: int, rate: float, seconds: float) -> list[Call]:
    bulk = arrivals("bulk", 10 * rate, seconds, seed=seed, tenant="bulk", service_class="batch", priority=-1)
    return [*_chat(seed, rate, seconds), *bulk]


def _code(seed: int, rate: float, seconds: float) -> list[Call]:
    """Long prompts of very different lengths, short answers."""
    return arrivals("code", rate, seconds, seed=seed, tokens_in=1_800, tokens_out=30, ttft=2.0, tpot=0.1)


def _deadlines(seed: int, rate: float, seconds: float) -> list[Call]:
    """Two kinds of callers: one wants the first token soon, the other within half a minute."""
    soon = arrivals("soon", rate / 2, seconds, seed=seed, ttft=1.0, tpot=0.1)
    later = arrivals("later", rate / 2, seconds, seed=seed, ttft=30.0, tpot=0.1)
    return [*soon, *later]


def _tenants(seed: int, rate: float, seconds: float) -> list[Call]:
    """One tenant sends ten times what five others send together."""
    quiet = [
        call
        for number in range(5)
        for call in arrivals(f"quiet{number}-", rate / 55, seconds, seed=seed, tenant=f"q{number}", ttft=2.0, tpot=0.1)
    ]
    return [*quiet, *arrivals("loud", rate / 1.1, seconds, seed=seed, tenant="loud", ttft=2.0, tpot=0.1)]


#: Name → its calls by seed, rate and seconds.
WORKLOADS: dict[str, Callable[[int, float, float], list[Call]]] = {
    "chat": _chat,
    "chat-beside-batch": _beside_batch,
    "code": _code,
    "two-deadlines": _deadlines,
    "loud-tenant": _tenants,
}


class Served(NamedTuple):
    """What came of a run."""

    answers: list[Answer]
    faults: tuple[str, ...]

    def of(self, prefix: str) -> list[Answer]:
        """The answers to one kind of calls."""
        return [each for each in self.answers if each.call.id.startswith(prefix)]


def serve(calls: list[Call], scheduler: str, selector: str = "", *, engines: int = ENGINES) -> Served:
    """Run calls to their end under a policy and, where one is named, a selector."""
    chosen = selector_named(selector) if selector else None
    simulation = Simulation(schedulers_named(scheduler), [BatchingModel()] * engines, selector=chosen)
    simulation.submit(calls)
    answers = simulation.run()
    if simulation.manager.held or simulation.manager.faults:
        raise RuntimeError(f"{scheduler}: {simulation.manager.held} held, faults {simulation.manager.faults}")
    return Served(answers, simulation.manager.faults)


def attainment(answers: list[Answer]) -> float:
    """The least share, over the kinds of calls with targets, of those issued that were answered within them."""
    kinds: dict[str, list[bool]] = {}
    for each in answers:
        if each.call.ttft is not None:
            kinds.setdefault(each.call.id.rstrip("0123456789"), []).append(each.met)
    return min((sum(met) / len(met) for met in kinds.values()), default=1.0)
