"""The engine that has computed the prompt's beginning before, unless it is much busier than others."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from sage_core import Candidate, Work, prefer_low

#: An engine this many works above the least busy one, and this many times as busy, has lost its claim.
AHEAD, TIMES = 8, 1.5
#: A share of the prompt below which nothing is gained by going back.
WORTH = 0.1


class PrefixAffinity:
    """Prefers the place that knows most of the prompt; where none does, or those that do are busy, the load decides.

    Affinity yields when a place holds `AHEAD` works more and `TIMES` as many as the least busy one: without a limit,
    the engine that knows a popular beginning draws all traffic and gets slower and slower.

    Good: long shared beginnings such as one system prompt a tenant, agents and conversations. Loses: prompts that share
    nothing make it least loaded; with prompts that share a little it balances worse than `lmetric`, which weighs what
    is saved against the batch it joins.

    Source: Preble (ICLR 2025) and the cache-aware router of SGLang for affinity that yields to imbalance.
    """

    def score(self, work: Work, candidates: Sequence[Candidate]) -> Mapping[str, float]:
        least = min((each.running for each in candidates), default=0)
        spread = prefer_low({each.id: each.load + 1e-6 * each.running for each in candidates})
        scores = {}
        for each in candidates:
            near = each.running <= max(least + AHEAD, least * TIMES)
            knows = near and each.local >= WORTH
            # Any place that knows something is above all that do not.
            scores[each.id] = 0.5 + 0.5 * min(each.local, 1.0) if knows else 0.5 * spread[each.id]
        return scores
