"""Cuts a root table into partitions by content, so that a row put in front moves one cut and not all of them.

A cut stands before every row whose hash is the smallest within a window around it: whether it is one depends on its
neighbours alone (local-minimum chunking, after Bjørner, Blass and Gurevich, "Content-dependent chunking for
differential compression, the local maximum approach", 2010).
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence


def partitions(hashes: Sequence[int], limit: int) -> list[tuple[int, int]]:
    """Bounds ``[start, stop)`` of consecutive partitions of at most `limit` rows; none for no rows.

    Args:
        hashes: one well-mixed integer per row, equal for equal content.
        limit: at least 1. Natural partitions hold about 0.4 of it, so that the limit rarely cuts.
    """
    n = len(hashes)
    window = max(1, limit // 5)
    if limit == 1:
        return [(row, row + 1) for row in range(n)]
    if n <= window:
        # The smallest of so few rows says nothing about a neighbourhood, and small runs want one job.
        return [(0, n)] if n else []
    cuts = [0]
    for row in range(1, n):
        low, high = max(0, row - window), min(n, row + window + 1)
        here = hashes[row]
        # Ties go to the earlier row; a window that the table's end cuts short counts as it is.
        if all(here < hashes[other] for other in range(low, row)) and all(
            here <= hashes[o] for o in range(row + 1, high)
        ):
            cuts.append(row)
    cuts.append(n)
    bounds = []
    for start, stop in itertools.pairwise(cuts):
        bounds += [(first, min(first + limit, stop)) for first in range(start, stop, limit)]
    return bounds
