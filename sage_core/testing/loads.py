"""Calls that arrive by chance, the same for the same seed, and what is said of their answers."""

from __future__ import annotations

import math
import random
from collections.abc import Iterable
from typing import Any

from sage_core.testing.batching import Call


def arrivals(
    name: str,
    rate: float,
    seconds: float,
    *,
    seed: int = 0,
    start: float = 0.0,
    tokens_in: int = 400,
    tokens_out: int = 150,
    **fields: Any,
) -> list[Call]:
    """Poisson arrivals at `rate` a second, with lognormal sizes around these medians; `fields` go into each `Call`."""
    rng = random.Random(f"{seed} {name}")
    calls: list[Call] = []
    at = start
    while (at := at + rng.expovariate(rate)) < start + seconds:
        calls.append(
            Call(
                id=f"{name}{len(calls)}",
                at=at,
                tokens_in=min(8_000, 1 + int(rng.lognormvariate(math.log(tokens_in), 1.0))),
                tokens_out=min(1_000, 2 + int(rng.lognormvariate(math.log(tokens_out), 0.7))),
                **fields,
            )
        )
    return calls


def percentile(values: Iterable[float], share: float) -> float:
    """The value that this share of the values does not exceed; NaN of none."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)] if ordered else math.nan
