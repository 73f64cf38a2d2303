from __future__ import annotations

import asyncio
import errno
import time
from collections.abc import Iterator
from typing import Any

import pytest

from sage_core.common.errors import ModelError, OperatorError, RequestRejected
from sage_core.common.operators import RowError
from sage_core.kernel.dataflow.graph import Retry
from sage_core.kernel.runtime.calls import CONCURRENT_ROWS, Call, Outcome, describe, kind_of
from sage_core.kernel.runtime.retries import RowFailed


def rows(call: Call, *columns: list[Any]) -> Outcome:
    return asyncio.run(call.rows(columns, len(columns[0])))


def fail_on(*bad: int) -> Any:
    def function(number: int) -> int:
        if number in bad:
            raise ValueError(number)
        return number * 10

    return function


def test_rows_before_between_and_after_failures_keep_their_places() -> None:
    numbers = list(range(100))
    outcome = rows(Call(fail_on(0, 31, 32, 33, 99), step="s"), numbers)
    assert sorted(outcome.failures) == [0, 31, 32, 33, 99]
    assert outcome.values == [None if number in outcome.failures else number * 10 for number in numbers]


def test_stop_iteration_is_a_failure_of_its_row_and_not_the_end_of_the_rows() -> None:
    def function(number: int) -> int:
        return next(iter([])) if number == 1 else number

    outcome = rows(Call(function, step="s"), [0, 1, 2])
    assert outcome.values == [0, None, 2]
    assert describe(outcome.failures[1]) == "RuntimeError: raised StopIteration"


def test_a_call_without_ports_runs_once_per_row() -> None:
    assert asyncio.run(Call(lambda: 7, step="s").rows([], 3)).values == [7, 7, 7]


def test_rows_that_are_yielded_are_gathered() -> None:
    def split(text: str) -> Iterator[str]:
        yield from text

    assert rows(Call(split, step="s", expands=True), ["ab", ""]).values == [["a", "b"], []]


def test_async_rows_overlap_up_to_a_bound() -> None:
    running, most = 0, 0

    async def function(number: int) -> int:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await asyncio.sleep(0)
        running -= 1
        return number

    outcome = rows(Call(function, step="s", is_async=True), list(range(200)))
    assert outcome.values == list(range(200))
    assert most == CONCURRENT_ROWS


@pytest.mark.parametrize("is_async", [False, True])
def test_what_is_no_rows_fault_ends_everything(is_async: bool) -> None:
    def full(number: int) -> int:
        raise OSError(errno.ENOSPC, "no space left") if number else ModelError("m", "is missing", "get it")

    async def later(number: int) -> int:
        return full(number)

    call = Call(later if is_async else full, step="s", is_async=is_async)
    with pytest.raises(ModelError):
        rows(call, [0, 0])
    with pytest.raises(OSError, match="no space left"):
        rows(call, [1, 1])


def test_a_cancelled_run_stops_between_rows() -> None:
    done: list[int] = []

    async def main() -> None:
        task = asyncio.ensure_future(Call(slow, step="s").rows([list(range(10_000))], 10_000))
        await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait([task])
        assert task.cancelled()

    def slow(number: int) -> None:
        done.append(number)
        until = time.perf_counter() + 0.001
        while time.perf_counter() < until:
            pass

    asyncio.run(main())
    assert len(done) < 10_000


def test_values_of_the_whole_batch_arrive_once() -> None:
    seen: list[Any] = []

    def near(vectors: list[int], query: int) -> list[int]:
        seen.append((vectors, query))
        return [vector * query for vector in vectors]

    call = Call(near, step="s").sharing({1})
    outcome = asyncio.run(call.batches([[1, 2, 3], [7, 7, 7]], 3, 2))
    assert outcome.values == [7, 14, 21]
    assert seen == [([1, 2], 7), ([3], 7)]


def test_a_batch_that_gives_no_list_is_the_operators_error() -> None:
    with pytest.raises(OperatorError, match="a batch of 2 rows gave int, not a list of 2"):
        asyncio.run(Call(lambda texts: 5, step="s").batches([["a", "b"]], 2, 8))


def test_kinds_and_texts_of_failures() -> None:
    assert (kind_of(ValueError()), kind_of(RowFailed("odd", "m"))) == ("ValueError", "odd")
    assert describe(TimeoutError()) == "took longer than its timeout"
    assert describe(ValueError()) == "ValueError"
    assert describe(RowFailed("user", "it is bad")) == "it is bad"


def test_a_rejected_call_waits_as_long_as_it_is_told() -> None:
    times: list[float] = []

    async def function(text: str) -> str:
        times.append(time.perf_counter())
        if len(times) == 1:
            raise RequestRejected("queue_full", retry_after=0.05)
        return text

    call = Call(function, step="s", is_async=True, retry=Retry(max=1, base=0.0))
    assert rows(call, ["a"]).values == ["a"]
    assert times[1] - times[0] >= 0.05


def test_a_row_error_is_a_failure() -> None:
    outcome = asyncio.run(Call(lambda t: ["a", RowError("no", kind="x")], step="s").batches([["a", "b"]], 2, 8))
    assert outcome.values == ["a", None]
    assert kind_of(outcome.failures[1]) == "x"
