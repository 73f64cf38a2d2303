"""Tests of sage_core.kernel.control_plane.pace: reports come now and then, and carry the mean."""

from __future__ import annotations

from sage_core.common.clock import MILLISECOND
from sage_core.kernel.control_plane.pace import EVERY, Pace


def test_a_report_comes_once_in_a_while_with_the_mean_of_all_streams() -> None:
    pace = Pace(0)
    assert pace.add(10 * MILLISECOND, 1, 10 * MILLISECOND) is None
    assert pace.add(30 * MILLISECOND, 1, 20 * MILLISECOND) is None
    assert pace.add(20 * MILLISECOND, 4, EVERY) == 0.010
    assert pace.add(20 * MILLISECOND, 1, EVERY + 1) is None
