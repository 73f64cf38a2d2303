"""Tests of sage_core.kernel.runtime.patience."""

from __future__ import annotations

import asyncio

import pytest

from sage_core.common.errors import StoreError, StoreUnavailable
from sage_core.kernel.runtime.patience import patiently


class Flaky:
    """A call that fails so many times."""

    def __init__(self, times: int, error: StoreError) -> None:
        self.left = times
        self.error = error

    def __call__(self) -> str:
        if self.left:
            self.left -= 1
            raise self.error
        return "done"


def test_a_store_that_is_away_is_asked_again() -> None:
    act = Flaky(2, StoreUnavailable("u", "away"))
    assert asyncio.run(patiently(act)) == "done"
    assert act.left == 0


def test_any_other_error_is_raised_at_once() -> None:
    act = Flaky(2, StoreError("u", "read-only"))
    with pytest.raises(StoreError, match="read-only"):
        asyncio.run(patiently(act))
    assert act.left == 1
