from __future__ import annotations

import hashlib
import itertools

from hypothesis import given
from hypothesis import strategies as st

from sage_core.kernel.runtime.partition import partitions


def hashed(*texts: str) -> list[int]:
    return [int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big") for text in texts]


@given(st.lists(st.integers(0, 50)), st.integers(1, 12))
def test_partitions_cover_all_rows_in_order_and_keep_the_limit(hashes: list[int], limit: int) -> None:
    bounds = partitions(hashes, limit)
    assert [row for start, stop in bounds for row in range(start, stop)] == list(range(len(hashes)))
    assert all(0 < stop - start <= limit for start, stop in bounds)


@given(st.lists(st.integers(0, 9), max_size=60), st.integers(2, 30))
def test_a_cut_stands_before_each_row_that_is_smallest_within_its_window(hashes: list[int], limit: int) -> None:
    window, n = max(1, limit // 5), len(hashes)
    starts = {start for start, _ in partitions(hashes, limit)}
    for row in range(1, n if n > window else 0):
        before, after = hashes[max(0, row - window) : row], hashes[row + 1 : row + window + 1]
        if hashes[row] < min(before) and all(hashes[row] <= other for other in after):
            assert row in starts


def test_few_rows_are_one_partition_and_none_are_none() -> None:
    assert partitions([], 256) == []
    assert partitions(hashed(*"abcdefghij"), 256) == [(0, 10)]
    assert partitions(hashed(*"abc"), 1) == [(0, 1), (1, 2), (2, 3)]


def test_a_row_put_in_front_removed_or_changed_touches_few_partitions() -> None:
    texts = [f"row {number}" for number in range(400)]

    def cut(rows: list[str]) -> set[tuple[str, ...]]:
        return {tuple(rows[start:stop]) for start, stop in partitions(hashed(*rows), 16)}

    before = cut(texts)
    assert len(before) >= 20
    for changed in (["new", *texts], texts[1:], [*texts[:200], "changed", *texts[201:]], [*texts, "last"]):
        assert len(cut(changed) - before) <= 3


def test_natural_partitions_are_about_two_fifths_of_the_limit() -> None:
    bounds = partitions(hashed(*map(str, range(20_000))), 250)
    sizes = [stop - start for start, stop in bounds]
    assert 75 < sum(sizes) / len(sizes) < 125
    assert all(stop == start for (_, stop), (start, _) in itertools.pairwise(bounds))
