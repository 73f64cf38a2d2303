"""The least of new prompt tokens times batch size."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from sage_core import Candidate, Work, prefer_low


class LMetric:
    """Prefers the place with the least product of the prompt tokens to be computed there and the works it would hold.

    The tokens are those in its queue of prompts and those of this work that it has not computed before. The product
    needs no weights: what speaks for a place by its cache and what speaks against it by its load cancel in one unit.

    Good: the strongest known rule without settings for chat on equal engines, with and without shared prefixes. Loses:
    engines of unequal speed, whose tokens it takes for equal; embeddings, where only load counts.

    Source: LMetric (OSDI 2026, arXiv 2603.15202).
    """

    def score(self, work: Work, candidates: Sequence[Candidate]) -> Mapping[str, float]:
        # The load, far below one token, decides between empty engines.
        return prefer_low({each.id: _tokens(work, each) * (each.running + 1) + 1e-6 * each.load for each in candidates})


def _tokens(work: Work, candidate: Candidate) -> float:
    waiting = candidate.place.prefill if candidate.place is not None else 0
    return waiting + max(1.0, work.tokens_in * (1.0 - candidate.local))
