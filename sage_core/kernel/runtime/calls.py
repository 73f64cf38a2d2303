"""Calls an operator over many rows: per row, in batches, synchronously or not, with retries, time limits and bisection.

A row that fails does not take the others with it: `Outcome.failures` says which failed and why, and the caller decides
by ``on_error`` what that means. What is nobody's row (a missing model, a full disk) is raised.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import itertools
import threading
import time
from collections.abc import Awaitable, Callable, Collection, Iterable, Iterator, Sequence
from typing import Any

import msgspec

from sage_core.common.errors import CorruptArtifact, ModelError, OperatorError, PluginError, StoreError
from sage_core.common.operators import RowError
from sage_core.kernel.dataflow.graph import Retry
from sage_core.kernel.runtime import retries
from sage_core.kernel.runtime.retries import RowFailed
from sage_core.kernel.runtime.table import concat

#: Rows in one call of a batch operator when the workflow does not say.
BATCH = 256
#: Calls of an async operator that are in flight together.
CONCURRENT_ROWS = 32
CONCURRENT_BATCHES = 4
#: Rows of a plain operator between two looks at the clock, and seconds between two looks at whether to stop.
STRIDE, GLANCE = 32, 0.02

#: Errors that are no row's fault; they end the job.
FATAL = (ModelError, StoreError, PluginError, CorruptArtifact, MemoryError)


class Outcome(msgspec.Struct, eq=False):
    """What the calls gave: one entry per row of `values` (a list, or a float32 block), and the rows that failed."""

    values: Any
    failures: dict[int, Exception]

    @classmethod
    def joined(cls, parts: Iterable[tuple[int, Outcome]]) -> Outcome:
        """One of several, each with the number of its first row."""
        parts = list(parts)
        failures = {start + row: error for start, part in parts for row, error in part.failures.items()}
        return cls(concat([part.values for _, part in parts]), failures)


class Call(msgspec.Struct, frozen=True, eq=False):
    """One operator bound to its options, ready to be called with a row's or a batch's port values."""

    #: Called with one positional argument per port.
    target: Callable[..., Any]
    step: str
    is_async: bool = False
    #: The target yields rows: they are gathered into a list before the call counts as done.
    expands: bool = False
    pure: bool = True
    retry: Retry = Retry()
    timeout: float | None = None

    def sharing(self, places: Collection[int]) -> Call:
        """The same batch call, with arguments at these places that are one value for the whole batch."""
        target = self.target

        def shared(*args: Any) -> Any:
            return target(*(arg[0] if place in places else arg for place, arg in enumerate(args)))

        return msgspec.structs.replace(self, target=shared)

    async def one(self, args: Sequence[Any]) -> Any:
        """A single call; raises what it raises after its retries."""
        result = await self._settled(args)
        if isinstance(result, Exception):
            raise result
        return result

    async def rows(self, columns: Sequence[Sequence[Any]], n: int) -> Outcome:
        """Call once per row; `columns` holds one sequence of length n per port, or none at all."""
        rows = zip(*columns, strict=True) if columns else itertools.repeat((), n)
        if self.is_async or self.timeout is not None:
            results = await self._all(self._settled, rows, n, CONCURRENT_ROWS)
            failures = {row: result for row, result in enumerate(results) if isinstance(result, Exception)}
            return Outcome([None if row in failures else value for row, value in enumerate(results)], failures)
        values: list[Any] = []
        failures = {}
        calls = itertools.starmap(self._list if self.expands else self.target, rows)
        looked = time.monotonic()
        while len(values) < n:
            wanted = min(n, len(values) + STRIDE)
            error: Exception | None = None
            try:
                # Three times quicker than a loop; what was called before one raises stays in `values`.
                values.extend(itertools.islice(calls, STRIDE))
            except Exception as raised:  # noqa: BLE001 - whatever an operator raises is that row's failure
                raise_if_fatal(raised)
                error = raised
            if error is None and len(values) < wanted:
                error = RuntimeError("raised StopIteration")
            if error is not None:
                row = len(values)
                values.append(await self._again([column[row] for column in columns], error))
                if isinstance(values[row], Exception):
                    failures[row], values[row] = values[row], None
            if time.monotonic() - looked > GLANCE:
                # A cancelled run stops here, between rows: nothing else in this loop lets the event loop act.
                await asyncio.sleep(0)
                looked = time.monotonic()
        return Outcome(values, failures)

    async def batches(self, columns: Sequence[Any], n: int, size: int) -> Outcome:
        """Call once per `size` rows; each call returns as many entries as it was given rows."""
        starts = range(0, n, size)

        async def part(start: int) -> Outcome:
            await asyncio.sleep(0)
            return await self._part([column[start : start + size] for column in columns], min(size, n - start))

        parts = await self._all(part, iter(starts), len(starts), CONCURRENT_BATCHES)
        return Outcome.joined(zip(starts, parts, strict=True))

    async def _all(self, call: Callable[[Any], Awaitable[Any]], args: Iterator[Any], n: int, width: int) -> list[Any]:
        """Call for each argument, results in order; async operators `width` at a time, others one by one."""
        results: list[Any] = [None] * n
        places = enumerate(args)

        async def work() -> None:
            for place, each in places:
                results[place] = await call(each)

        if not self.is_async or n == 1:
            await work()
            return results
        try:
            async with asyncio.TaskGroup() as group:
                for _ in range(min(width, n)):
                    group.create_task(work())
        except BaseExceptionGroup as errors:
            raise errors.exceptions[0] from None
        return results

    async def _part(self, columns: Sequence[Any], n: int) -> Outcome:
        values = await self._settled(columns)
        if not isinstance(values, Exception):
            return self._checked(values, n)
        if n == 1 or not self.pure:
            return Outcome([None] * n, dict.fromkeys(range(n), values))
        # A pure operator may be called again on halves until the rows that break it are alone.
        half = n // 2
        first = await self._part([column[:half] for column in columns], half)
        second = await self._part([column[half:] for column in columns], n - half)
        return Outcome.joined([(0, first), (half, second)])

    def _checked(self, values: Any, n: int) -> Outcome:
        if not hasattr(values, "__len__"):
            raise OperatorError(self.step, f"a batch of {n} rows gave {type(values).__name__}, not a list of {n}")
        if len(values) != n:
            raise OperatorError(
                self.step,
                f"a batch of {n} rows gave {len(values)} results",
                help="a Batch operator returns exactly one entry per row, in order; use RowError for a row that failed",
            )
        if not isinstance(values, list | tuple):
            return Outcome(values, {})
        failures: dict[int, Exception] = {
            row: RowFailed(value.kind, value.message) for row, value in enumerate(values) if isinstance(value, RowError)
        }
        return Outcome(
            [None if row in failures else value for row, value in enumerate(values)] if failures else list(values),
            failures,
        )

    async def _settled(self, args: Sequence[Any]) -> Any:
        """The result of a call with its retries, or its last error."""
        try:
            return await self._once(args)
        except Exception as error:  # noqa: BLE001 - whatever an operator raises is that row's failure
            raise_if_fatal(error)
            return await self._again(args, error)

    async def _once(self, args: Sequence[Any]) -> Any:
        if self.timeout is None:
            return await self._invoke(args)
        if self.is_async:
            async with asyncio.timeout(self.timeout):
                return await self._invoke(args)
        return await asyncio.wait_for(_in_thread(self._plain, args), self.timeout)

    async def _invoke(self, args: Sequence[Any]) -> Any:
        if not self.is_async:
            return self._plain(args)
        if self.expands:
            return [item async for item in self.target(*args)]
        return await self.target(*args)

    def _plain(self, args: Sequence[Any]) -> Any:
        return self._list(*args) if self.expands else self.target(*args)

    def _list(self, *args: Any) -> list[Any]:
        return list(self.target(*args))

    async def _again(self, args: Sequence[Any], error: Exception) -> Any:
        """Retry as the step says; return the result, or the last error."""
        for attempt in range(1, self.retry.max + 1):
            if not retries.named(error, self.retry):
                break
            await asyncio.sleep(retries.backoff(error, attempt, self.retry))
            try:
                return await self._once(args)
            except Exception as again:  # noqa: BLE001 - the next failure of the same row
                raise_if_fatal(again)
                error = again
        return error


def kind_of(error: Exception) -> str:
    """A failure's class, for reports: the exception's, or what `RowError` says."""
    return error.kind if isinstance(error, RowFailed) else type(error).__name__


def describe(error: Exception) -> str:
    """One line that tells a person what went wrong in a row."""
    if isinstance(error, TimeoutError) and not str(error):
        return "took longer than its timeout"
    if isinstance(error, RowFailed | OperatorError):
        return str(error)
    text = str(error)
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def raise_if_fatal(error: Exception) -> None:
    """Raise what is no row's fault."""
    if isinstance(error, FATAL) or (isinstance(error, OSError) and error.errno == errno.ENOSPC):
        raise error


def _in_thread(function: Callable[..., Any], *args: Any) -> asyncio.Future[Any]:
    """Call in a daemon thread: one that outlives its time limit cannot be stopped, only left behind.

    The threads of `asyncio.to_thread` would be waited for at the end of the run.
    """
    loop = asyncio.get_running_loop()
    future: asyncio.Future[Any] = loop.create_future()

    def settle(result: Any, error: Exception | None) -> None:
        if not future.done():
            future.set_result(result) if error is None else future.set_exception(error)

    def work() -> None:
        outcome: tuple[Any, Exception | None]
        try:
            outcome = function(*args), None
        except StopIteration as error:
            outcome = None, RuntimeError(f"raised StopIteration: {error}")  # which no future can hold
        except Exception as error:  # noqa: BLE001 - handed to whoever awaits
            outcome = None, error
        with contextlib.suppress(RuntimeError):  # The loop is closed: nobody waits any more.
            loop.call_soon_threadsafe(settle, *outcome)

    threading.Thread(target=work, name="sage-call", daemon=True).start()
    return future
