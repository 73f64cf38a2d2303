"""Quality of one ranking, written apart from `rag.evaluate`, so that each can be held against the other."""

from __future__ import annotations

from collections.abc import Sequence
from math import log2


def ndcg(ranking: Sequence[str], relevant: Sequence[str], k: int) -> float:
    """Binary nDCG of the first `k`."""
    wanted = set(relevant)
    gains = [1 / log2(place + 2) for place in range(k)]
    got = sum(gain for gain, name in zip(gains, ranking, strict=False) if name in wanted)
    return got / sum(gains[: len(wanted)]) if wanted else 0.0


def recall(ranking: Sequence[str], relevant: Sequence[str], k: int) -> float:
    """Share of the relevant documents among the first `k`."""
    wanted = set(relevant)
    return len(wanted.intersection(ranking[:k])) / len(wanted) if wanted else 0.0


def mrr(ranking: Sequence[str], relevant: Sequence[str], k: int) -> float:
    """1 / place of the first relevant document among the first `k`, else 0."""
    wanted = set(relevant)
    for place, name in enumerate(ranking[:k], 1):
        if name in wanted:
            return 1 / place
    return 0.0
