"""The processes of a trial, as the test sees them: a nest that forks victims and helpers, and waiting for events."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Self

ROOT = Path(__file__).parents[2]
#: Seconds after which something that must happen has not.
PATIENCE = 60.0


def start(*arguments: str, module: str = "tests.chaos.worker", **environ: str) -> subprocess.Popen[str]:
    """Start a chaos worker, or another module."""
    return subprocess.Popen(
        [sys.executable, "-m", module, *arguments],
        cwd=ROOT,
        env={**os.environ, **environ},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def wait_for(condition: Callable[[], Any], what: str, seconds: float = PATIENCE) -> Any:
    """Wait for another process to bring something about, and return it."""
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < deadline, f"never happened: {what}"
        # The event is another process's commit or line; there is nothing of ours to wait on.
        time.sleep(0.005)
    return found


def wait_until_stopped(pid: int) -> None:
    """Wait until a process has stopped itself; it is not our child, so its state is read."""
    stat = Path(f"/proc/{pid}/stat")
    wait_for(lambda: stat.read_text().rpartition(")")[2].split()[0] == "T", f"process {pid} stops")


class Nest:
    """Forks a process per order in milliseconds; every store is opened after the fork."""

    def __init__(self, module: str = "tests.chaos.worker") -> None:
        self._process = start("nest", module=module)

    def begin(self, do: str, **fields: Any) -> int:
        """Start a child and return its process id; `end` waits for it."""
        order = {
            **{"store": "store", "work": "work", "queue": "default", "at": 0, "sent": False, "limit": 1},
            **{"stop_at": "", "files": "", "secret": "", "lease_ms": 600_000, "run": "", "idle_ms": 0, "do": do},
            **fields,
        }
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(order) + "\n")
        self._process.stdin.flush()
        return int(self._answer()["pid"])

    def end(self) -> dict[str, Any]:
        """How the child ended: its exit code, and what it found."""
        return self._answer()

    def do(self, do: str, **fields: Any) -> dict[str, Any]:
        """Start a child and wait for its end."""
        self.begin(do, **fields)
        return self.end()

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            assert self._process.stderr is not None
            raise AssertionError(f"the nest is gone: {self._process.stderr.read()}")
        answer: dict[str, Any] = json.loads(line)
        return answer

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        # A child may be left stopped by a test that failed.
        os.killpg(self._process.pid, signal.SIGKILL)
        self._process.communicate()
