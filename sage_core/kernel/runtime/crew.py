"""Worker processes: started, kept alive by heartbeats, noticed when they die, stopped at the end.

The children of whoever drives a run, and of a node's supervisor.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
import uuid
from pathlib import Path

from sage_core.common.errors import StoreUnavailable
from sage_core.common.host import Host
from sage_core.common.paths import Paths
from sage_core.common.records import Record
from sage_core.common.telemetry import log
from sage_core.platform.store import JobStore

#: Seconds workers may take to give their jobs back after SIGTERM before they are killed.
GRACE = 5.0
#: Where a child finds the job store's URL, which may hold a password: command lines can be read by every user.
STORE = "SAGE_WORKER_STORE"
#: Bytes at the end of the workers' log in which its last line is looked for.
TAIL = 4096


class End(Record):
    """A worker that has ended."""

    worker: str
    pid: int
    #: Exit status; 0 is no death: it had nothing left to do, or was told to leave.
    code: int
    #: Jobs it held, which are claimable again.
    jobs: int


class Crew:
    """Worker processes with one duty, as children in this process's group.

    Args:
        duty: what they claim: ``--run=ID`` or ``--queue=NAME``, and what else the worker's command line knows.
    """

    def __init__(self, *duty: str, url: str, folder: Path, host: Host, paths: Paths) -> None:
        self.log = paths.logs / "workers.log"
        self._url = url
        self._command = [
            *(sys.executable, "-m", "sage_core.kernel.runtime.worker"),
            *(f"--project={paths.project}", f"--data={paths.data}", f"--runtime={paths.runtime}"),
            f"--folder={folder}",
            *(f"--plugin={name}={module}" for name, module in host.modules().items()),
            *duty,
        ]
        self._workers: dict[str, subprocess.Popen[bytes]] = {}
        self.deaths = 0

    def __len__(self) -> int:
        return len(self._workers)

    def workers(self) -> list[str]:
        """Ids of the workers that were not seen to end."""
        return list(self._workers)

    def pids(self) -> list[int]:
        """Their process ids."""
        return [child.pid for child in self._workers.values()]

    def start(self, *more: str, parent: int | None = None) -> str:
        """Start one worker and return its id."""
        self.log.parent.mkdir(parents=True, exist_ok=True)
        worker = uuid.uuid4().hex
        own = (f"--id={worker}", f"--parent={parent or os.getpid()}", f"--born={time.time():.3f}")
        with self.log.open("ab") as out:
            self._workers[worker] = subprocess.Popen(
                [*self._command, *own, *more],
                env={**os.environ, STORE: self._url},
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
            )
        return worker

    def fill(self, size: int) -> None:
        """Start workers until there are as many as wanted."""
        while len(self) < size:
            self.start()

    def bury(self, store: JobStore) -> list[End]:
        """Release the jobs of workers that have ended."""
        ends = []
        for worker, child in [(w, c) for w, c in self._workers.items() if c.poll() is not None]:
            why, dead = _why(child), child.returncode != 0
            jobs = store.release_worker(worker, f"{why}; see {self.log}" if dead else why, refund=not dead)
            del self._workers[worker]
            if dead:
                self.deaths += 1
                log("worker_died", worker=worker, pid=child.pid, code=child.returncode)
            ends.append(End(worker=worker, pid=child.pid, code=child.returncode, jobs=jobs))
        return ends

    def all_alive(self) -> bool:
        """Whether no worker has ended since the last look."""
        return all(child.poll() is None for child in self._workers.values())

    def stop(self, store: JobStore, *, grace: float = GRACE) -> None:
        """End all workers: they give their jobs back, or are killed when `grace` seconds are over for all of them."""
        for child in self._workers.values():
            child.terminate()
        last = time.monotonic() + grace
        for child in self._workers.values():
            try:
                child.wait(max(0.0, last - time.monotonic()))
            except subprocess.TimeoutExpired:
                child.kill()
                child.wait()
        for worker in self._workers:
            # A store that is away frees them when their leases run out.
            with contextlib.suppress(StoreUnavailable):
                store.release_worker(worker, "stopped", refund=True)
        self._workers.clear()

    def kill(self) -> None:
        """End all workers now."""
        for child in self._workers.values():
            child.kill()

    def last_line(self) -> str:
        """The last thing a worker said."""
        with self.log.open("rb") as lines:
            size = lines.seek(0, 2)
            lines.seek(max(0, size - TAIL))
            found = lines.read().decode(errors="replace").strip().splitlines()
        return found[-1].strip() if found else "(empty)"


def _why(child: subprocess.Popen[bytes]) -> str:
    code = child.returncode
    if code >= 0:
        return f"process {child.pid} ended with status {code}"
    name = signal.Signals(-code).name if -code in set(signal.Signals) else f"signal {-code}"
    memory = ", as the system does when memory runs out" if name == "SIGKILL" else ""
    return f"process {child.pid} was killed by {name}{memory}"
