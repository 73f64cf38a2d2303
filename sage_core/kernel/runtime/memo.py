"""Row memory for model calls: rows that were computed before, in any run, are not sent to a model again."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from sage_core.kernel.runtime.calls import Call, Outcome
from sage_core.kernel.runtime.table import take
from sage_core.kernel.runtime.values import Codec, digest


class Memo:
    """The memory of one step under one set of options, named by `key`.

    Args:
        get: values of the keys that are known.
        put: remembers values; raises `StaleAttempt` when the job is no longer ours.
    """

    def __init__(
        self,
        get: Callable[[Sequence[str]], Mapping[str, bytes]],
        put: Callable[[Mapping[str, bytes]], object],
        codec: Codec,
        key: str,
    ) -> None:
        self._get, self._put = get, put
        self._codec = codec
        self._key = key
        self._computed = 0
        self._remembered = 0

    def take_counts(self) -> tuple[int, int]:
        """Rows computed, and rows remembered, since the last call."""
        counts = self._computed, self._remembered
        self._computed = self._remembered = 0
        return counts

    async def rows(self, call: Call, columns: Sequence[Any], n: int) -> Outcome:
        """Like `Call.rows`, calling only for rows that are not remembered."""
        return await self._through(columns, n, lambda missing: call.rows(missing, len(missing[0])))

    async def batches(self, call: Call, columns: Sequence[Any], n: int, size: int) -> Outcome:
        """Like `Call.batches`; what one call gave is remembered before the next, so a killed job loses little."""

        async def compute(missing: Sequence[Any]) -> Outcome:
            return await call.batches(missing, len(missing[0]), size)

        # As many rows as are in flight together: remembered when they are done, not when all are.
        stride = size * 4
        parts = [
            await self._through([column[start : start + stride] for column in columns], min(stride, n - start), compute)
            for start in range(0, n, stride)
        ]
        return Outcome.joined(zip(range(0, n, stride), parts, strict=True))

    async def _through(self, columns: Sequence[Any], n: int, compute: Callable[[Sequence[Any]], Any]) -> Outcome:
        keys = [digest(self._key, self._codec.encode(row)) for row in zip(*columns, strict=True)]
        known = self._get(keys)
        missing = [row for row in range(n) if keys[row] not in known]
        self._remembered += n - len(missing)
        self._computed += len(missing)
        values: list[Any] = [self._codec.decode(known[key]) if key in known else None for key in keys]
        failures: dict[int, Exception] = {}
        if missing:
            outcome: Outcome = await compute([take(column, missing) for column in columns])
            fresh: dict[str, bytes] = {}
            for place, row in enumerate(missing):
                if place in outcome.failures:
                    failures[row] = outcome.failures[place]
                else:
                    values[row] = outcome.values[place]
                    fresh[keys[row]] = self._codec.encode(values[row])
            if fresh:
                self._put(fresh)
        return Outcome(values, failures)
