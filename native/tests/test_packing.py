"""The compiled cutter gives what its twin in sage-core gives, and refuses what it cannot count."""

from __future__ import annotations

from pathlib import Path

import pytest
import sage_native
from hypothesis import example, given, settings
from hypothesis import strategies as st
from sage_native.packing import cut

from sage_core.kernel.control_plane.packing import KERNELS, WASTE_SHARE, WASTE_TOKENS, cut_in_python

LENGTHS = st.one_of(st.integers(0, 300), st.integers(0, 2**31 - 1))
#: Amounts at which a batch is just full, or just lean, are drawn often by being small.
BUDGETS = st.one_of(st.integers(0, 2_000), st.integers(0, 2**62))


@given(st.lists(LENGTHS, max_size=200), BUDGETS, st.one_of(st.integers(0, 20), st.integers(0, 2**40)))
@example([], 0, 0)
@example([2**31 - 1] * 5, 2**62, 5)
@example([1_000, 1_256], 4_000, 9)
@example([1, 257, 258], 4_000, 9)
@settings(max_examples=500, deadline=None)
def test_the_twins_are_equal(tokens: list[int], batch_tokens: int, batch_rows: int) -> None:
    found = cut(tokens, batch_tokens, batch_rows, WASTE_SHARE, WASTE_TOKENS)
    assert found == cut_in_python(tokens, batch_tokens, batch_rows)


@given(st.integers(1, 400), st.integers(1, 400), st.integers(2, 40))
def test_the_twins_agree_on_what_is_too_much_padding(short: int, long: int, rows: int) -> None:
    tokens = [short] * rows + [long]
    assert cut(tokens, 2**40, 2**20, WASTE_SHARE, WASTE_TOKENS) == cut_in_python(tokens, 2**40, 2**20)


def test_any_sequence_will_do() -> None:
    assert cut((5, 3), 8, 9, WASTE_SHARE, WASTE_TOKENS) == cut(range(5, 2, -2), 8, 9, WASTE_SHARE, WASTE_TOKENS)


@pytest.mark.parametrize("length", [2**31, -(2**31) - 1, 2**70])
def test_a_length_that_would_overflow_is_refused(length: int) -> None:
    with pytest.raises(OverflowError):
        cut([length], 100, 4, WASTE_SHARE, WASTE_TOKENS)


@pytest.mark.parametrize("row", ["3", None])
def test_what_is_no_length_is_refused(row: object) -> None:
    with pytest.raises(TypeError):
        cut([1, row], 100, 4, WASTE_SHARE, WASTE_TOKENS)  # type: ignore[list-item]


def test_the_core_uses_it_where_it_is_installed() -> None:
    assert f"sage-native {sage_native.__version__}" == KERNELS


def test_it_imports_nothing_of_sage() -> None:
    sources = [*(Path(__file__).parents[1] / "sage_native").glob("*.py*")]
    assert len(sources) >= 3
    assert not [source.name for source in sources if "sage_core" in source.read_text(encoding="utf-8")]
