"""The defaults, offered through the same hooks as any plugin's: orderings, and selectors of nodes and engines."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from hashlib import blake2b

from sage_core.common.hookspecs import hookimpl
from sage_core.common.host import Host
from sage_core.common.policies import prefer_low
from sage_core.common.records import Candidate, Needs, Node, Work


@hookimpl
def sage_schedulers() -> Mapping[str, str]:
    """First come, first served, and the same with a head start for what matters more."""
    return {"fifo": f"{__name__}:Fifo", "priority": f"{__name__}:Priority"}


@hookimpl
def sage_node_selectors() -> Mapping[str, str]:
    """Two filters, scorers and two pickers."""
    return {
        "capability": f"{__name__}:Capability",
        "fits": f"{__name__}:Fits",
        "least_loaded": f"{__name__}:LeastLoaded",
        "spread": f"{__name__}:Spread",
        "pack": f"{__name__}:Pack",
        "affinity": f"{__name__}:Affinity",
        "best": f"{__name__}:Best",
        "round_robin": f"{__name__}:RoundRobin",
    }


def default_host(plugins: Mapping[str, object] | None = None) -> Host:
    """Make a host with the defaults and `plugins` (None: the installed ones)."""
    return Host(plugins, builtins=sys.modules[__name__])


class Fifo:
    """Orders by arrival."""

    def rank(self, work: Work) -> float:
        # Exact up to 2**53 ns (104 days); epoch times closer than 256 ns tie, and ties fall by arrival.
        return float(work.arrival)


#: How much earlier one unit of priority makes a work look, in ns: a minute.
HEAD_START = 60_000_000_000


class Priority:
    """Orders by arrival, with a head start of a minute per unit of priority.

    So nothing waits for ever: a work is overtaken only by those that arrive within the head start they have over it.
    """

    def rank(self, work: Work) -> float:
        return float(work.arrival - work.priority * HEAD_START)


class Capability:
    """Rules out nodes that could never run the work: a label, or too little even when the node is empty."""

    local = False

    def admits(self, work: Work, needs: Needs, candidate: Candidate) -> bool:
        node = candidate.node
        return node is None or (
            set(needs.labels) <= set(node.labels)
            and needs.cpu <= node.cpu
            and needs.memory <= node.memory
            and needs.gpu <= node.gpu
            and needs.gpu_memory <= node.gpu_memory
        )


class Fits:
    """Rules out nodes without enough left at this moment, and open batches without room for the work."""

    local = False

    def admits(self, work: Work, needs: Needs, candidate: Candidate) -> bool:
        node, place = candidate.node, candidate.place
        if place is not None and place.batch and work.tokens_in > place.room_tokens:
            return False
        return node is None or (
            needs.cpu <= node.cpu - node.used_cpu
            and needs.memory <= node.memory - node.used_memory
            and needs.gpu <= node.gpu - node.used_gpu
        )


class LeastLoaded:
    """Prefers the place with the fewest predicted engine-seconds, and among equals the one with fewer works."""

    local = False

    def score(self, work: Work, candidates: Sequence[Candidate]) -> Mapping[str, float]:
        # A microsecond a work: decides between equal loads, and where no cost is known yet.
        return prefer_low({each.id: each.load + 1e-6 * each.running for each in candidates})


class Spread:
    """Prefers the node of which the least is in use, by its scarcest resource: every node keeps room."""

    def score(self, work: Work, candidates: Sequence[Candidate]) -> Mapping[str, float]:
        return {each.id: 1.0 - _share(each) for each in candidates}


class Pack:
    """Prefers the node of which the most is in use, so that others stay empty: for large works, or to be let go."""

    def score(self, work: Work, candidates: Sequence[Candidate]) -> Mapping[str, float]:
        return {each.id: _share(each) for each in candidates}


class Affinity:
    """Prefers places where the work's models are loaded and what it reads lies."""

    def score(self, work: Work, candidates: Sequence[Candidate]) -> Mapping[str, float]:
        return {each.id: min(max(each.local, 0.0), 1.0) for each in candidates}


def _share(candidate: Candidate) -> float:
    return min((candidate.node or Node(name=candidate.id)).share, 1.0)


class Best:
    """Picks the highest score; ties fall by a seeded digest of the work and the place, so they spread and repeat."""

    def __init__(self, seed: int = 0) -> None:
        self._seed = seed

    def pick(self, work: Work, scores: Mapping[str, float]) -> str:
        top = max(scores.values())
        tied = [name for name, score in scores.items() if score == top]
        return tied[0] if len(tied) == 1 else max(tied, key=lambda name: (self._lot(work, name), name))

    def _lot(self, work: Work, name: str) -> bytes:
        return blake2b(f"{self._seed}\0{work.id}\0{name}".encode(), digest_size=8).digest()


class RoundRobin:
    """Picks among the highest scores the one whose last turn is longest ago."""

    def __init__(self) -> None:
        self._turns: dict[str, int] = {}
        self._turn = 0

    def pick(self, work: Work, scores: Mapping[str, float]) -> str:
        top = max(scores.values())
        chosen = min(
            (name for name, score in scores.items() if score == top),
            key=lambda name: (self._turns.get(name, 0), name),
        )
        self._turn += 1
        # Re-inserted at the end, so that the dict's order is the order of turns and the oldest can be dropped.
        self._turns.pop(chosen, None)
        self._turns[chosen] = self._turn
        if len(self._turns) > 4 * len(scores) + 1_024:
            del self._turns[next(iter(self._turns))]
        return chosen
