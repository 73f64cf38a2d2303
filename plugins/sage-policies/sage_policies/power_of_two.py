"""The better of two places drawn by lot."""

from __future__ import annotations

from collections.abc import Mapping
from hashlib import blake2b
from typing import ClassVar

from sage_core import Work


class PowerOfTwo:
    """Picks the higher score of two places drawn for the work: by its id and the seed, so that the draw repeats.

    Good: many engines and scores that are a little stale, as with several gateways: the best place of all would be
    everybody's choice at once. Loses: here scores are exact, and up to some sixteen engines looking at all is better.

    Source: M. Mitzenmacher, "The Power of Two Choices in Randomized Load Balancing" (2001).
    """

    #: What it compares by where sage.toml names it alone: without scores it would be `random`.
    scorers: ClassVar[Mapping[str, float]] = {"least_loaded": 1.0}

    def __init__(self, seed: int = 0) -> None:
        self._seed = seed

    def pick(self, work: Work, scores: Mapping[str, float]) -> str:
        names = sorted(scores)
        if len(names) == 1:
            return names[0]
        lot = int.from_bytes(blake2b(f"{self._seed}\0{work.id}".encode(), digest_size=8).digest(), "big")
        first = lot % len(names)
        second = (first + 1 + lot // len(names) % (len(names) - 1)) % len(names)
        return max((names[first], names[second]), key=lambda name: scores[name])
