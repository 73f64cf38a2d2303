"""Rows, slices and open batches: what is cut together, shared, cancelled and handed out."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from sage_core.common.records import Caller, Capacity, Work
from sage_core.kernel.control_plane.embedding_executor import EmbeddingExecutor, OpenBatch, Slice
from sage_core.kernel.control_plane.events import Outline

SMALL = Capacity(batch_tokens=100, batch_rows=4, context=80)


def take(
    executor: EmbeddingExecutor, name: str, tokens: Sequence[int], keys: str = "", *, deadline: int | None = None
) -> list[Slice]:
    """Register a request whose texts have these token counts and keys (by default one of its own each)."""
    texts = tuple(keys) or tuple(f"{name}{number}" for number in range(len(tokens)))
    outline = Outline(
        id=name, kind="embed", model="m", lane="m", caller=Caller(), sizes=tuple(tokens), keys=texts
    )  # fmt: skip
    work = Work(id=name, lane="m", kind="embed", arrival=0, deadline=deadline)
    return executor.take(outline, work, tokens, SMALL)


def everything(executor: EmbeddingExecutor, *parts: Slice) -> list[Slice]:
    """The slices of a request, those that are held back released one after another."""
    found = list(parts)
    batch = OpenBatch(9, "e", SMALL, 0)
    while found:
        executor.join(batch, found[-1])
        part = executor.spare("m", lambda work: True, 0)
        if part is None:
            break
        found.append(part)
    return found


def board(executor: EmbeddingExecutor, *parts: Slice) -> OpenBatch:
    batch = OpenBatch(1, "e", SMALL, 0)
    for part in parts:
        assert executor.room(batch, part.work.id) > 0
        executor.join(batch, part)
    return batch


def test_a_request_is_cut_by_length_into_slices_that_fit_a_batch() -> None:
    executor = EmbeddingExecutor()
    parts = everything(executor, *take(executor, "a", [60, 10, 50, 10, 50, 10, 10, 10]))
    assert [[row.tokens for row in part.rows] for part in parts] == [[10, 10, 10, 10], [10, 50], [50], [60]]
    assert [part.work.id for part in parts] == ["a/0", "a/1", "a/2", "a/3"]
    assert [part.work.tokens_in for part in parts] == [40, 60, 50, 60]


def test_a_text_longer_than_the_context_counts_as_long_as_it_will_be_cut() -> None:
    (part,) = take(EmbeddingExecutor(), "a", [5_000])
    assert part.tokens == SMALL.context


def test_a_batch_takes_what_leaves_little_padding() -> None:
    roomy = Capacity(batch_tokens=4_000, batch_rows=64)
    executor = EmbeddingExecutor()
    (short,) = take(executor, "a", [10])
    (long,) = take(executor, "b", [80])
    batch = OpenBatch(1, "e", roomy, 0)
    executor.join(batch, short)
    assert executor.room(batch, long.work.id) == 4_000 - 10
    for number in range(9):
        (part,) = take(executor, f"c{number}", [10])
        executor.join(batch, part)
    assert executor.room(batch, long.work.id) == 0


def test_equal_texts_are_one_row_and_everyone_gets_it() -> None:
    executor = EmbeddingExecutor()
    (first,) = take(executor, "a", [5, 6, 5], "xyx")
    assert take(executor, "b", [6], "y") == []
    batch = board(executor, first)
    assert [row.tokens for row in executor.close(batch)] == [5, 6]
    assert [(name, share.rows, share.at, share.tokens, ends) for name, share, ends in executor.finish([first])] == [
        ("a", [0, 0, 1], [0, 2, 1], 11, True),
        ("b", [1], [0], 6, True),
    ]
    assert executor.size == 0


def test_a_nearer_deadline_does_not_wait_behind_a_later_one() -> None:
    executor = EmbeddingExecutor()
    take(executor, "calm", [5], "x", deadline=1_000)
    (urgent,) = take(executor, "urgent", [5], "x", deadline=10)
    assert urgent.work.deadline == 10
    assert take(executor, "later", [5], "x", deadline=50) == []


def test_a_request_that_leaves_takes_its_rows_along_and_no_others() -> None:
    executor = EmbeddingExecutor()
    (part,) = take(executor, "a", [5, 60, 60], "xyz")
    assert take(executor, "b", [5], "x") == []
    assert [gone.work.id for gone in executor.leave("a")] == ["a/1", "a/2"]
    assert [row.tokens for row in part.rows] == [5]
    assert executor.leave("b") == [part]
    assert executor.size == 0


class TestChains:
    """One slice of a request is queued at a time."""

    def test_the_next_slice_is_queued_when_nothing_else_of_its_request_is_on_its_way(self) -> None:
        executor = EmbeddingExecutor()
        (first,) = take(executor, "a", [60, 61, 62])
        assert list(executor.due("m", 5)) == []
        board(executor, first)
        assert list(executor.due("m", 5)) == []
        list(executor.finish([first]))
        (second,) = executor.due("m", 5)
        assert (second.work.id, second.work.arrival) == ("a/1", 5)
        assert executor.held("m") == 62

    def test_a_slice_that_fits_where_nothing_else_goes_does_not_wait_for_its_siblings(self) -> None:
        executor = EmbeddingExecutor()
        (first,) = take(executor, "a", [60, 61, 62])
        assert executor.spare("m", lambda work: True, 0) is None, "one is queued already"
        board(executor, first)
        assert executor.spare("m", lambda work: False, 0) is None
        second = executor.spare("m", lambda work: True, 7)
        assert second is not None
        assert (second.work.id, second.work.arrival) == ("a/1", 7)

    def test_a_short_request_takes_over_a_text_that_a_long_one_holds_back(self) -> None:
        executor = EmbeddingExecutor()
        (first,) = take(executor, "bulk", [60, 61, 62], "xyz")
        (query,) = take(executor, "query", [62], "z")
        assert [list(row.waiters) for row in query.rows] == [["bulk", "query"]]
        assert [part.work.id for part in everything(executor, first)] == ["bulk/0", "bulk/1"]
        with pytest.raises(KeyError):
            executor.slice("bulk/2")
        assert [name for name, _, ends in executor.finish([query]) if ends] == ["query"]

    def test_a_text_is_not_taken_over_by_a_request_that_is_no_shorter(self) -> None:
        executor = EmbeddingExecutor()
        take(executor, "bulk", [60, 61, 62], "xyz")
        assert take(executor, "as long", [61, 62], "yz") == []

    def test_a_text_that_is_queued_already_is_not_moved(self) -> None:
        executor = EmbeddingExecutor()
        take(executor, "bulk", [60, 61, 62], "xyz")
        assert take(executor, "query", [60], "x") == []

    def test_what_is_held_back_for_someone_else_outlives_the_request_that_brought_it(self) -> None:
        executor = EmbeddingExecutor()
        take(executor, "bulk", [60, 61, 62], "xyz")
        take(executor, "heir", [61, 62], "yz")
        assert [part.work.id for part in executor.leave("bulk")] == ["bulk/0"]
        assert [part.work.id for part in executor.due("m", 0)] == ["bulk/1"]
        assert [part.work.id for part in executor.leave("heir")] == ["bulk/1", "bulk/2"]
        assert executor.size == 0

    def test_a_slice_that_failed_waits_again_and_none_is_queued_beside_it(self) -> None:
        executor = EmbeddingExecutor()
        (first,) = take(executor, "a", [60, 61])
        board(executor, first)
        assert executor.again(first)
        assert list(executor.due("m", 0)) == []
        assert executor.spare("m", lambda work: True, 0) is None


def test_rows_nobody_wants_are_not_computed_when_their_batch_closes() -> None:
    executor = EmbeddingExecutor()
    (one,) = take(executor, "a", [5])
    (two,) = take(executor, "b", [5])
    batch = board(executor, one, two)
    executor.leave("a")
    assert [list(row.waiters) for row in executor.close(batch)] == [["b"]]


def test_a_failed_slice_goes_alone_the_next_time_and_then_fails_its_requests() -> None:
    executor = EmbeddingExecutor()
    (one,) = take(executor, "a", [5])
    (two,) = take(executor, "b", [5])
    board(executor, one, two)
    one.alone = True
    assert executor.again(one)
    batch = OpenBatch(2, "e", SMALL, 0)
    executor.join(batch, one)
    assert batch.full
    assert executor.room(batch, two.work.id) == 0
    assert executor.fail(one) == ["a"]
    with pytest.raises(KeyError):
        executor.slice(one.work.id)
