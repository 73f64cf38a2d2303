"""What rows would cost without SAGE: ``python -m sage_bench.plain COUNT START`` calls the same functions in a loop."""

from __future__ import annotations

import json
import sys
import time

from sage_bench.operators import numbers, same, total
from sage_core import Dataset


def main(count: int, start: int, repeat: int) -> None:
    """Print the seconds of each loop, and the sum it came to."""
    seconds, found = [], 0
    for _ in range(repeat):
        begun = time.perf_counter()
        values: Dataset[int] = Dataset()
        for value in numbers(count=count, start=start):
            values.append(same(same(same(value))))
        found = total(values)
        seconds.append(time.perf_counter() - begun)
    sys.stdout.write(json.dumps({"seconds": seconds, "total": found}))


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
