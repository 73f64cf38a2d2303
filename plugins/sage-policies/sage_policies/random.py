"""Any place, by lot."""

from __future__ import annotations

from collections.abc import Mapping
from hashlib import blake2b

from sage_core import Work


class Random:
    """Picks by a digest of the work's id and the seed, whatever the scores: evenly, and the same in a replay.

    Good: as a baseline, and where nothing is known of the places. Loses: to every rule that looks at the load, and the
    more so the more sizes differ.

    Source: the baseline of Y. Azar and others, "Balanced Allocations" (1994), against which two choices are measured.
    """

    def __init__(self, seed: int = 0) -> None:
        self._seed = seed

    def pick(self, work: Work, scores: Mapping[str, float]) -> str:
        names = sorted(scores)
        lot = blake2b(f"{self._seed}\0{work.id}".encode(), digest_size=8).digest()
        return names[int.from_bytes(lot, "big") % len(names)]
