"""Bootstrap intervals: how far a figure would move if the same measurement were drawn again."""

from __future__ import annotations

import random
import statistics
from collections.abc import Callable, Sequence
from typing import Literal

Statistic = Literal["mean", "median", "min", "max"]

#: Resamples per interval; the seed is fixed, so a result file always gives the same table.
RESAMPLES, SEED = 2_000, 20_240_229

_OF: dict[str, Callable[[Sequence[float]], float]] = {
    "mean": statistics.fmean,
    "median": statistics.median,
    "min": min,
    "max": max,
}


def summarise(values: Sequence[float], statistic: Statistic) -> float:
    """The statistic of the values."""
    return float(_OF[statistic](values))


def interval(values: Sequence[float], statistic: Statistic) -> tuple[float, float] | None:
    """95 % percentile bootstrap interval; None where one value says nothing about spread."""
    if len(values) < 2:
        return None
    draw = random.Random(SEED)
    function = _OF[statistic]
    found = sorted(float(function(draw.choices(values, k=len(values)))) for _ in range(RESAMPLES))
    return found[int(0.025 * RESAMPLES)], found[int(0.975 * RESAMPLES)]


def differs(left: Sequence[float], right: Sequence[float]) -> tuple[float, float, float]:
    """Mean of the paired differences ``left - right``, with its interval."""
    differences = [one - other for one, other in zip(left, right, strict=True)]
    low, high = interval(differences, "mean") or (differences[0], differences[0])
    return statistics.fmean(differences), low, high
