"""Calls an operator over many rows: per row, in batches, synchronously or not, with retries, time limits and bisection.

A row that fails does not take the others with it: `Outcome.failures` says which failed and why, and the caller decides
by ``on_error`` what that means. What is nobody's row (a missing model, a full disk) is raised.
"""

from __future__ import annotations

import asyncio
import copy
import errno
import random
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

from sage_core.common.errors import (
    CorruptArtifact,
    ModelError,
    OperatorError,
    PluginError,
    RequestRejected,
    StoreError,
)
from sage_core.common.operators import RowError
from sage_core.kernel.dataflow.graph import Retry

#: Rows in one call of a batch operator when the workflow does not say.
BATCH = 256
#: Calls of an async operator that are in flight together.
CONCURRENT_ROWS = 32
CONCURRENT_BATCHES = 4

#: Errors that are no row's fault; they end the job.
FATAL = (ModelError, StoreError, PluginError, CorruptArtifact, MemoryError)


class Outcome:
    """What the calls gave: one entry per row of `values` (a list, or a float32 block), and the rows that failed."""

    __slots__ = ("failures", "values")

    def __init__(self, values: Any, failures: dict[int, Exception]) -> None:
        self.values = values
        self.failures = failures


class Call:
    """One operator bound to its options, ready to be called with a row's or a batch's port values.

    Args:
        target: called with one positional argument per port.
        expands: the target yields rows: they are gathered into a list before the call counts as done.
    """

    def __init__(
        self,
        target: Callable[..., Any],
        *,
        step: str,
        is_async: bool = False,
        expands: bool = False,
        pure: bool = True,
        retry: Retry = Retry(),
        timeout: float | None = None,
    ) -> None:
        self._target = target
        self._step = step
        self._is_async = is_async
        self._expands = expands
        self._pure = pure
        self._retry = retry
        self._timeout = timeout

    def fixed(self, given: Mapping[int, Any]) -> Call:
        """The same call with some arguments, by position, filled in once and for all."""
        target = self._target

        def filled(*args: Any) -> Any:
            rest = list(args)
            for place in sorted(given):
                rest.insert(place, given[place])
            return target(*rest)

        call = copy.copy(self)
        call._target = filled
        return call

    async def one(self, args: Sequence[Any]) -> Any:
        """A single call; raises what it raises after its retries."""
        try:
            return await self._once(args)
        except Exception as error:  # noqa: BLE001 - tried again, then raised
            _raise_if_fatal(error)
            result = await self._again(args, error)
            if isinstance(result, Exception):
                raise result from None
            return result

    async def rows(self, columns: Sequence[Sequence[Any]], n: int) -> Outcome:
        """Call once per row; `columns` holds one sequence of length n per port, or none at all."""
        rows = zip(*columns, strict=True) if columns else iter([()] * n)
        if self._is_async or self._timeout is not None:
            gate = asyncio.Semaphore(CONCURRENT_ROWS)
            results = await _gather([self._gated(gate, row) for row in rows])
            return _outcome(results)
        values: list[Any] = []
        failures: dict[int, Exception] = {}
        target, expands = self._target, self._expands
        for row in rows:
            try:
                values.append(list(target(*row)) if expands else target(*row))
            except Exception as error:  # noqa: BLE001 - whatever an operator raises is that row's failure
                _raise_if_fatal(error)
                result = await self._again(row, error)
                if isinstance(result, Exception):
                    failures[len(values)] = result
                    result = None
                values.append(result)
        return Outcome(values, failures)

    async def batches(self, columns: Sequence[Any], n: int, size: int) -> Outcome:
        """Call once per `size` rows; each call returns as many entries as it was given rows."""
        bounds = [(start, min(start + size, n)) for start in range(0, n, size)]
        gate = asyncio.Semaphore(CONCURRENT_BATCHES if self._is_async else 1)
        parts = await _gather([self._batch(gate, columns, start, stop) for start, stop in bounds])
        failures = {
            start + row: error
            for (start, _), part in zip(bounds, parts, strict=True)
            for row, error in part.failures.items()
        }
        return Outcome(_joined([part.values for part in parts]), failures)

    async def _batch(self, gate: asyncio.Semaphore, columns: Sequence[Any], start: int, stop: int) -> Outcome:
        async with gate:
            return await self._part([column[start:stop] for column in columns], stop - start)

    async def _part(self, columns: Sequence[Any], n: int) -> Outcome:
        try:
            values = await self._once(columns)
        except Exception as error:  # noqa: BLE001 - whatever an operator raises is these rows' failure
            _raise_if_fatal(error)
            values = await self._again(columns, error)
        if not isinstance(values, Exception):
            return self._checked(values, n)
        if n == 1 or not self._pure:
            return Outcome([None] * n, dict.fromkeys(range(n), values))
        # A pure operator may be called again on halves until the rows that break it are alone.
        half = n // 2
        first = await self._part([column[:half] for column in columns], half)
        second = await self._part([column[half:] for column in columns], n - half)
        failures = first.failures | {half + row: error for row, error in second.failures.items()}
        return Outcome(_joined([first.values, second.values]), failures)

    def _checked(self, values: Any, n: int) -> Outcome:
        if not hasattr(values, "__len__"):
            raise OperatorError(self._step, f"a batch of {n} rows gave {type(values).__name__}, not a list of {n}")
        if len(values) != n:
            raise OperatorError(
                self._step,
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

    async def _gated(self, gate: asyncio.Semaphore, row: Sequence[Any]) -> Any:
        async with gate:
            try:
                return await self._once(row)
            except Exception as error:  # noqa: BLE001 - whatever an operator raises is that row's failure
                _raise_if_fatal(error)
                return await self._again(row, error)

    async def _once(self, args: Sequence[Any]) -> Any:
        if self._timeout is None:
            return await self._invoke(args)
        if self._is_async:
            async with asyncio.timeout(self._timeout):
                return await self._invoke(args)
        # A thread that outlives its time limit cannot be stopped, only ignored: the row fails now.
        return await asyncio.wait_for(asyncio.to_thread(self._plain, args), self._timeout)

    async def _invoke(self, args: Sequence[Any]) -> Any:
        if not self._is_async:
            return self._plain(args)
        if self._expands:
            return [item async for item in self._target(*args)]
        return await self._target(*args)

    def _plain(self, args: Sequence[Any]) -> Any:
        return list(self._target(*args)) if self._expands else self._target(*args)

    async def _again(self, args: Sequence[Any], error: Exception) -> Any:
        """Retry as the step says; return the result, or the last error."""
        for attempt in range(self._retry.max):
            if cause(error) not in self._retry.on and "any" not in self._retry.on:
                break
            delay = min(self._retry.cap, self._retry.base * 2**attempt) * (0.5 + random.random() / 2)
            if isinstance(error, RequestRejected) and error.retry_after is not None:
                delay = max(delay, error.retry_after)
            await asyncio.sleep(delay)
            try:
                return await self._once(args)
            except Exception as again:  # noqa: BLE001 - the next failure of the same row
                _raise_if_fatal(again)
                error = again
        return error


class RowFailed(Exception):
    """A failure that a batch operator reported for one row with `RowError`."""

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(kind, message)
        self.kind = kind

    def __str__(self) -> str:
        message: str = self.args[1]
        return message


def cause(error: Exception) -> str:
    """Why a call failed: rate_limit, timeout or user; ``retry.on`` lists these."""
    if isinstance(error, RequestRejected):
        return "rate_limit"
    if isinstance(error, TimeoutError):
        return "timeout"
    return error.kind if isinstance(error, RowFailed) else "user"


def describe(error: Exception) -> str:
    """One line that tells a person what went wrong in a row."""
    if isinstance(error, TimeoutError) and not str(error):
        return "took longer than its timeout"
    if isinstance(error, RowFailed | OperatorError):
        return str(error)
    text = str(error)
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def _raise_if_fatal(error: Exception) -> None:
    if isinstance(error, FATAL) or (isinstance(error, OSError) and error.errno == errno.ENOSPC):
        raise error


def _outcome(results: list[Any]) -> Outcome:
    failures = {row: result for row, result in enumerate(results) if isinstance(result, Exception)}
    return Outcome([None if row in failures else value for row, value in enumerate(results)], failures)


async def _gather(calls: list[Awaitable[Any]]) -> list[Any]:
    """Run all, in order; the first that raises cancels the rest."""
    if len(calls) == 1:
        return [await calls[0]]
    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(_awaited(call)) for call in calls]
    except BaseExceptionGroup as errors:
        raise errors.exceptions[0] from None
    return [task.result() for task in tasks]


async def _awaited(call: Awaitable[Any]) -> Any:
    return await call


def _joined(parts: list[Any]) -> Any:
    blocks = [part for part in parts if not isinstance(part, list)]
    if not blocks:
        return [value for part in parts for value in part]
    if len(parts) == 1:
        return parts[0]
    import numpy  # noqa: PLC0415 - only runs with vectors pay for numpy

    if len(blocks) == len(parts):
        return numpy.concatenate(parts)
    # Some batches failed as a whole: their rows stand as zeros, which the mask hides.
    empty = numpy.zeros(blocks[0].shape[1:], dtype=blocks[0].dtype)
    return numpy.stack([empty if value is None else value for part in parts for value in part])
