"""The process of one case: ``python -m sage_bench.child`` reads an order on stdin and writes what was measured."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import Any

import msgspec

from sage_bench.results import Measured
from sage_bench.suite import Bench, measure_of
from sage_core import SageError


class Order(msgspec.Struct, frozen=True, kw_only=True):
    """What to measure."""

    measure: str
    options: dict[str, Any]
    seed: int
    repeat: int
    #: Folder of the data set; empty where none is needed.
    data: str = ""


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """What came of an order: figures, or why there are none."""

    measured: Measured | None = None
    error: str = ""


def answer(order: Order) -> Answer:
    """Measure in an empty folder that is removed afterwards."""
    with tempfile.TemporaryDirectory(prefix="sage-bench-", ignore_cleanup_errors=True) as work:
        bench = Bench(
            work=Path(work), seed=order.seed, repeat=order.repeat, data=Path(order.data) if order.data else None
        )
        try:
            return Answer(measured=measure_of(order.measure, order.options).measure(bench))
        except SageError as error:
            return Answer(error=str(error))
        except Exception as error:  # noqa: BLE001 - whatever a measure raises is its case's error; the others go on
            return Answer(error=f"{type(error).__name__}: {error}")


def main() -> None:
    """Answer one order."""
    order = msgspec.json.decode(sys.stdin.buffer.read(), type=Order)
    sys.stdout.buffer.write(msgspec.json.encode(answer(order)))


if __name__ == "__main__":
    main()
