"""Cutting rows into batches: nothing is lost, every limit is kept, no batch could have taken one row more."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sage_core.kernel.control_plane.packing import KERNELS, WASTE_SHARE, WASTE_TOKENS, Cut, cut, cut_in_python, lean

#: By name; where sage-native is not installed, both are the one in Python. native/tests holds the two equal.
CUTS = pytest.mark.parametrize("cut", [cut_in_python, cut], ids=["twin", KERNELS])
ROWS = st.lists(st.integers(1, 600), max_size=60)


def fits(tokens: list[int], batch_tokens: int, batch_rows: int) -> bool:
    padded = max(tokens) * len(tokens)
    wasted = padded - sum(tokens)
    return (
        padded <= batch_tokens and len(tokens) <= batch_rows and wasted <= max(WASTE_SHARE * sum(tokens), WASTE_TOKENS)
    )


@CUTS
def test_short_and_long_texts_go_apart(cut: Cut) -> None:
    assert cut([60, 10, 50, 10, 50, 10, 10, 10], 100, 4) == [[1, 3, 5, 6], [7, 2], [4], [0]]
    assert cut([], 100, 4) == []


@CUTS
def test_a_text_that_is_too_long_for_any_batch_has_one_of_its_own(cut: Cut) -> None:
    assert cut([500, 500, 3], 100, 4) == [[2], [0], [1]]


def test_padding_is_bounded_by_a_share_or_an_amount() -> None:
    assert lean(1_200, 1_000)
    assert lean(1_256, 1_000)
    assert not lean(1_257, 1_000)
    assert lean(12_000, 10_000)
    assert not lean(12_001, 10_000)


@CUTS
@given(tokens=ROWS, batch_tokens=st.integers(1, 3_000), batch_rows=st.integers(1, 20))
def test_every_row_is_in_one_batch_and_batches_keep_the_limits(
    cut: Cut, tokens: list[int], batch_tokens: int, batch_rows: int
) -> None:
    parts = cut(tokens, batch_tokens, batch_rows)
    places = [place for part in parts for place in part]
    assert places == sorted(range(len(tokens)), key=lambda place: (tokens[place], place))
    for part in parts:
        assert len(part) == 1 or fits([tokens[place] for place in part], batch_tokens, batch_rows)
    for part, following in pairwise(parts):
        assert not fits([tokens[place] for place in (*part, following[0])], batch_tokens, batch_rows)
