"""How fast a class is served."""

from __future__ import annotations

import pytest
from sage_hybrid.rate import AVERAGED, Rate

from sage_core import SECOND


def test_nothing_is_known_at_first() -> None:
    rate = Rate()
    rate.begin(5 * SECOND)
    assert (rate.per_second(5 * SECOND), rate.per_second(6 * SECOND)) == (0.0, 0.0)


def test_a_steady_rate_is_told_from_the_first_seconds_on() -> None:
    rate = Rate()
    rate.begin(0)
    for tenth in range(1, 1_200):
        rate.add(0.2, tenth * SECOND // 10)
        if tenth > 20:
            assert rate.per_second(tenth * SECOND // 10) == pytest.approx(2.0, rel=0.06)


def test_a_rate_that_changed_is_known_within_its_time() -> None:
    rate = Rate()
    rate.begin(0)
    rate.add(600.0, SECOND)
    later = round((1 + AVERAGED) * SECOND)
    assert rate.per_second(later) == pytest.approx(600.0 / AVERAGED / 2.718 / 0.644, rel=0.02)
    rate.begin(later)
    assert rate.per_second(later + SECOND) == 0.0
