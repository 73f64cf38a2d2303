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
    cuts = [0, *(row for row in range(1, n) if _is_smallest(hashes, row, window)), n]
    bounds = []
    for start, stop in itertools.pairwise(cuts):
        bounds += [(first, min(first + limit, stop)) for first in range(start, stop, limit)]
    return bounds


def _is_smallest(hashes: Sequence[int], row: int, window: int) -> bool:
    """Whether no row within the window is smaller; ties go to the earlier row.

    A window that the table's end cuts short counts as it is. Looking at twice as many rows each time costs
    O(log window) a row: of 2r + 1 rows one is the smallest, and only that one is looked at further.
    """
    here, radius = hashes[row], 1
    while True:
        before, after = hashes[max(0, row - radius) : row], hashes[row + 1 : row + radius + 1]
        if here >= min(before) or here > min(after, default=here):
            return False
        if radius == window:
            return True
        radius = min(2 * radius, window)
