"""Row memory for model calls: rows that were computed before, in any run, are not sent to a model again."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

from sage_core.kernel.runtime.calls import Call, Outcome
from sage_core.kernel.runtime.values import Codec, digest


class MemoStore(Protocol):
    """Where remembered rows are kept; writes are guarded by the job's fence."""

    def get(self, keys: Sequence[str]) -> Mapping[str, bytes]:
        """Values of the keys that are known."""

    def put(self, items: Sequence[tuple[str, bytes]]) -> None:
        """Remember values; raises `StaleAttempt` when the job is no longer ours."""


class Memo:
    """The memory of one step under one set of options, named by `key`."""

    def __init__(self, store: MemoStore, codec: Codec, key: str) -> None:
        self._store = store
        self._codec = codec
        self._key = key
        self._computed = 0
        self._remembered = 0

    def take_computed(self) -> int:
        """Rows computed since the last call."""
        count, self._computed = self._computed, 0
        return count

    def take_remembered(self) -> int:
        """Rows remembered since the last call."""
        count, self._remembered = self._remembered, 0
        return count

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
        if len(parts) == 1:
            return parts[0]
        failures = {
            index * stride + row: error for index, part in enumerate(parts) for row, error in part.failures.items()
        }
        return Outcome([value for part in parts for value in part.values], failures)

    async def _through(self, columns: Sequence[Any], n: int, compute: Callable[[Sequence[Any]], Any]) -> Outcome:
        keys = [digest(self._key, self._codec.encode(row)) for row in zip(*columns, strict=True)]
        known = self._store.get(keys)
        missing = [row for row in range(n) if keys[row] not in known]
        self._remembered += n - len(missing)
        self._computed += len(missing)
        values: list[Any] = [self._codec.decode(known[key]) if key in known else None for key in keys]
        failures: dict[int, Exception] = {}
        if missing:
            outcome: Outcome = await compute([_pick(column, missing) for column in columns])
            fresh = []
            for place, row in enumerate(missing):
                if place in outcome.failures:
                    failures[row] = outcome.failures[place]
                else:
                    values[row] = outcome.values[place]
                    fresh.append((keys[row], self._codec.encode(values[row])))
            self._store.put(fresh)
        return Outcome(values, failures)


def _pick(column: Any, rows: Sequence[int]) -> Any:
    return [column[row] for row in rows] if isinstance(column, list) else column[list(rows)]
