from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from sage_core.kernel.runtime.calls import Call
from sage_core.kernel.runtime.memo import Memo
from sage_core.kernel.runtime.values import Codec


class Kept:
    """A memory in a dictionary."""

    def __init__(self) -> None:
        self.known: dict[str, bytes] = {}

    def get(self, keys: Sequence[str]) -> Mapping[str, bytes]:
        return {key: self.known[key] for key in keys if key in self.known}

    def put(self, items: Mapping[str, bytes]) -> None:
        self.known.update(items)


def make(kept: Kept, folder: Path, key: str = "k") -> Memo:
    return Memo(kept.get, kept.put, Codec(folder), key)


def test_only_rows_that_are_not_known_are_called(tmp_path: Path) -> None:
    called: list[str] = []

    def shout(text: str) -> str:
        called.append(text)
        if text == "bad":
            raise ValueError(text)
        return text.upper()

    kept = Kept()
    memo = make(kept, tmp_path)
    call = Call(shout, step="s")
    outcome = asyncio.run(memo.rows(call, [["a", "bad"]], 2))
    assert (outcome.values, list(outcome.failures)) == (["A", None], [1])
    outcome = asyncio.run(memo.rows(call, [["b", "a", "bad"]], 3))
    assert (outcome.values, list(outcome.failures)) == (["B", "A", None], [2])
    assert called == ["a", "bad", "b", "bad"]
    assert memo.take_counts() == (4, 1)
    assert memo.take_counts() == (0, 0)


def test_another_key_is_another_memory(tmp_path: Path) -> None:
    kept, call = Kept(), Call(str.upper, step="s")
    asyncio.run(make(kept, tmp_path, "one").rows(call, [["a"]], 1))
    other = make(kept, tmp_path, "two")
    asyncio.run(other.rows(call, [["a"]], 1))
    assert other.take_counts() == (1, 0)


def test_what_some_calls_gave_is_kept_when_a_later_one_ends_the_job(tmp_path: Path) -> None:
    def many(texts: list[str]) -> list[Any]:
        if "boom" in texts:
            raise MemoryError
        return [text.upper() for text in texts]

    kept = Kept()
    memo = make(kept, tmp_path)
    texts = [*(f"t{number}" for number in range(8)), "boom"]
    try:
        asyncio.run(memo.batches(Call(many, step="s"), [texts], 9, 2))
    except MemoryError:
        assert len(kept.known) == 8
    else:
        raise AssertionError("MemoryError is no row's fault")
