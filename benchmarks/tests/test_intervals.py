"""Statistics and their bootstrap intervals."""

from __future__ import annotations

import pytest
from sage_bench.intervals import differs, interval, summarise


def test_the_statistic_is_the_one_named() -> None:
    values = [1.0, 2.0, 9.0]
    assert summarise(values, "mean") == 4.0
    assert summarise(values, "median") == 2.0
    assert summarise(values, "min") == 1.0


def test_one_value_has_no_interval() -> None:
    assert interval([3.0], "mean") is None


def test_values_that_agree_have_an_interval_of_no_width() -> None:
    assert interval([2.0, 2.0, 2.0], "median") == (2.0, 2.0)


def test_an_interval_holds_the_mean_narrows_with_values_and_is_always_the_same() -> None:
    few, many = [0.0, 1.0] * 5, [0.0, 1.0] * 100
    wide, narrow = interval(few, "mean"), interval(many, "mean")
    assert wide is not None
    assert narrow is not None
    assert wide[0] < 0.5 < wide[1]
    # The standard error of the mean of n coin tosses is 0.5 / sqrt(n).
    assert narrow[1] - narrow[0] == pytest.approx(2 * 1.96 * 0.5 / 200**0.5, rel=0.1)
    assert wide[1] - wide[0] > 2 * (narrow[1] - narrow[0])
    assert interval(many, "mean") == narrow


def test_paired_differences_see_what_independent_means_would_not() -> None:
    right = [float(value) for value in range(100)]
    left = [value + 0.5 for value in right]
    assert differs(left, right) == (0.5, 0.5, 0.5)
    with pytest.raises(ValueError, match="zip"):
        differs([1.0], [1.0, 2.0])
