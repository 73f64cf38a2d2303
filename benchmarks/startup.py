"""How long commands take to start, above `python -c pass` in the same run: one JSON line a command.

    python benchmarks/startup.py [--repeat N] ["sage --help" "sage check FILE" ...]

Runs are interleaved, so that a busy moment hits every command alike. The minimum is what the code costs; the median is
what this machine made of it. It does not show the first start after an installation, which compiles bytecode.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shlex
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

BASE = "python -c pass"


def resolve(command: str) -> list[str]:
    """Split a command line; `sage` and `python` are those of this environment."""
    name, *arguments = shlex.split(command)
    beside = Path(sys.executable).with_name(name)
    return [str(beside) if beside.exists() else name, *arguments]


def measure(commands: Sequence[str], repeat: int) -> dict[str, list[float]]:
    """Seconds of each run of each command, after one run that is not counted."""
    seconds: dict[str, list[float]] = {command: [] for command in commands}
    for turn in range(repeat + 1):
        for command, taken in seconds.items():
            started = time.perf_counter()
            subprocess.run(resolve(command), stdout=subprocess.DEVNULL, check=True)
            if turn:
                taken.append(time.perf_counter() - started)
    return seconds


def main() -> None:
    """Measure the commands given and print a line for each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("commands", nargs="*", default=["sage --help", "sage --version"])
    parser.add_argument("--repeat", type=int, default=15)
    options = parser.parse_args()
    seconds = measure([BASE, *options.commands], options.repeat)
    base = seconds.pop(BASE)
    for command, taken in seconds.items():
        line = {
            "command": command,
            "min_ms_above_python": round(1_000 * (min(taken) - min(base))),
            "median_ms_above_python": round(1_000 * (statistics.median(taken) - statistics.median(base))),
            "repeat": options.repeat,
            "python": platform.python_version(),
            "cpus": os.cpu_count(),
        }
        sys.stdout.write(json.dumps(line) + "\n")


if __name__ == "__main__":
    main()
