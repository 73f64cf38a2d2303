"""Operators of the workflows that whole machines run: every row that is worked on leaves a line in a file."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Mapping

from sage_core import Dataset, hookimpl, operator


@operator("chaos.rows", returns="row", version="1", pure=False)
def rows(*, n: int) -> Iterator[int]:
    """Count to n."""
    yield from range(n)


@operator("chaos.work", returns="done", version="1", pure=False)
def work(row: int, *, log: str, step: str, seconds: float = 0.0) -> int:
    """Take a while, and say where."""
    # The work itself: something for a kill to fall into.
    time.sleep(seconds)
    file = os.open(log, os.O_APPEND | os.O_CREAT | os.O_WRONLY, 0o666)
    os.write(file, f"{step} {row} {os.uname().nodename} {os.getpid()}\n".encode())
    os.close(file)
    return row


@operator("chaos.total", returns="total", version="1", pure=False)
def total(done: Dataset[int]) -> int:
    """Sum what was done: a row that is missing, or is there twice, changes it."""
    return sum(1 << row for row in done)


@hookimpl
def sage_operators() -> Mapping[str, str]:
    """Name them."""
    return {f"chaos.{name}": f"{__name__}:{name}" for name in ("rows", "work", "total")}
