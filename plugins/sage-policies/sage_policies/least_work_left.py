"""The engine with the least work left."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from sage_core import Candidate, Work, prefer_low


class LeastWorkLeft:
    """Prefers the place whose works have the fewest engine-seconds left, counting what is under way as half done.

    `least_loaded` counts every work in full until it ends. Of works that have begun to answer, half is done on average:
    so an engine late in long answers is known to be nearly free, and one full of fresh prompts to be not.

    Good: sizes that differ much, as long as their predictions are roughly right. Loses: with equal sizes it is the
    fewest requests; it knows no prefixes, so on a shared cache `lmetric` beats it.

    Source: M. Harchol-Balter, M. Crovella and C. Murta, "On Choosing a Task Assignment Policy for a Distributed Server
    System" (1999).
    """

    local = False

    #: It looks at no prefixes.
    local = False

    def score(self, work: Work, candidates: Sequence[Candidate]) -> Mapping[str, float]:
        # A microsecond a work: decides between equal loads, and where no cost is known yet.
        return prefer_low({each.id: _left(each) + 1e-6 * each.running for each in candidates})


def _left(candidate: Candidate) -> float:
    place = candidate.place
    if place is None or not place.context:
        return candidate.load
    # Tokens reserved by works that have begun to answer, as a share of all.
    begun = 1.0 - min(1.0, place.prefill / place.context)
    return candidate.load * (1.0 - begun / 2.0)
