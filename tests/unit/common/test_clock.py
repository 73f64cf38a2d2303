"""The system clock runs forward, the fake one when told."""

from __future__ import annotations

import pytest

from sage_core.common.clock import MILLISECOND, SECOND, SystemClock
from sage_core.testing import FakeClock


def test_the_system_clock_counts_whole_nanoseconds_upwards() -> None:
    clock = SystemClock()
    first, second = clock.now(), clock.now()
    assert isinstance(first, int)
    assert second >= first
    assert SECOND == 1_000 * MILLISECOND


def test_the_fake_clock_moves_when_told(sage_clock: FakeClock) -> None:
    assert sage_clock.now() == 0
    assert sage_clock.advance(0.25) == SECOND // 4 == sage_clock.now()
    with pytest.raises(ValueError, match="cannot go back"):
        sage_clock.advance(-1)
