"""Worker processes: started, listened to, noticed when they die or fall silent, stopped at the end.

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
from sage_core.kernel.runtime.lifesign import Lifesign
from sage_core.platform.store import JobStore

#: Seconds until workers are killed: after SIGTERM, to give their jobs back, and after a lease without a sign of life.
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
    #: It was killed because it gave no sign of life.
    silent: bool = False


class _Child(Record):
    process: subprocess.Popen[bytes]
    sign: Lifesign

    def why(self, lease: float) -> str:
        """How it ended."""
        code, pid = self.process.returncode, self.process.pid
        if code >= 0:
            return f"process {pid} ended with status {code}"
        if self.sign.silence > lease:
            return f"process {pid} was killed, because it gave no sign of life for {self.sign.silence:.0f} s"
        name = signal.Signals(-code).name if -code in set(signal.Signals) else f"signal {-code}"
        memory = ", as the system does when memory runs out" if name == "SIGKILL" else ""
        return f"process {pid} was killed by {name}{memory}"


class Crew:
    """Worker processes with one duty, as children in this process's group.

    Args:
        duty: what they claim: ``--run=ID`` or ``--queue=NAME``, and what else the worker's command line knows.
        lease: seconds; who is silent for longer has lost its jobs.
    """

    def __init__(self, *duty: str, url: str, folder: Path, host: Host, paths: Paths, lease: float) -> None:
        self.log = paths.logs / "workers.log"
        self._lease = lease
        self._url = url
        self._command = [
            *(sys.executable, "-m", "sage_core.kernel.runtime.worker"),
            *(f"--project={paths.project}", f"--data={paths.data}", f"--runtime={paths.runtime}"),
            f"--folder={folder}",
            *(f"--plugin={name}={module}" for name, module in host.modules().items()),
            *duty,
        ]
        self._workers: dict[str, _Child] = {}
        self.deaths = 0

    def __len__(self) -> int:
        """Count the workers that are not silent."""
        return sum(child.sign.silence <= self._lease for child in self._workers.values())

    def workers(self) -> list[str]:
        """Ids of the workers that were not seen to end."""
        return list(self._workers)

    def pids(self) -> list[int]:
        """Their process ids."""
        return [child.process.pid for child in self._workers.values()]

    def living(self) -> list[str]:
        """Ids of the workers that gave a sign of life just now; one silent for too long is killed."""
        found = []
        for worker, child in self._workers.items():
            # Whoever could not use the answer asks again soon, and is not told that all are silent since.
            if child.sign.listen(child.process.pid) or child.sign.silence < self._lease / 4:
                found.append(worker)
            elif child.sign.silence > self._lease + GRACE:
                child.process.kill()
        return found

    def start(self, *more: str, parent: int | None = None) -> str:
        """Start one worker and return its id."""
        self.log.parent.mkdir(parents=True, exist_ok=True)
        worker = uuid.uuid4().hex
        sign = Lifesign(self._lease)
        own = (f"--id={worker}", f"--parent={parent or os.getpid()}", f"--born={time.time():.3f}")
        try:
            with self.log.open("ab") as out:
                process = subprocess.Popen(
                    [*self._command, *own, f"--sign={sign.writer}", *more],
                    env={**os.environ, STORE: self._url},
                    stdin=subprocess.DEVNULL,
                    stdout=out,
                    stderr=out,
                    pass_fds=[sign.writer],
                )
        finally:
            os.close(sign.writer)
        self._workers[worker] = _Child(process=process, sign=sign)
        return worker

    def fill(self, size: int) -> None:
        """Start workers until there are as many as wanted."""
        while len(self) < size:
            self.start()

    def bury(self, store: JobStore) -> list[End]:
        """Release the jobs of workers that have ended."""
        ends = []
        for worker, child in [(w, c) for w, c in self._workers.items() if c.process.poll() is not None]:
            pid, code = child.process.pid, child.process.returncode
            why, dead = child.why(self._lease), code != 0
            jobs = store.release_worker(worker, f"{why}; see {self.log}" if dead else why, refund=not dead)
            os.close(self._workers.pop(worker).sign.reader)
            if dead:
                self.deaths += 1
                log("worker_died", worker=worker, pid=pid, code=code, reason=why)
            ends.append(End(worker=worker, pid=pid, code=code, jobs=jobs, silent=child.sign.silence > self._lease))
        return ends

    def all_alive(self) -> bool:
        """Whether no worker has ended since the last look."""
        return all(child.process.poll() is None for child in self._workers.values())

    def stop(self, store: JobStore, *, grace: float = GRACE) -> None:
        """End all workers: they give their jobs back, or are killed when `grace` seconds are over for all of them."""
        for child in self._workers.values():
            child.process.terminate()
        last = time.monotonic() + grace
        for child in self._workers.values():
            try:
                child.process.wait(max(0.0, last - time.monotonic()))
            except subprocess.TimeoutExpired:
                child.process.kill()
                child.process.wait()
            os.close(child.sign.reader)
        # Where the store is away, their jobs are free when their leases run out.
        with contextlib.suppress(StoreUnavailable):
            for worker in self._workers:
                store.release_worker(worker, "stopped", refund=True)
        self._workers.clear()

    def kill(self) -> None:
        """End all workers now."""
        for child in self._workers.values():
            child.process.kill()

    def last_line(self) -> str:
        """The last thing a worker said."""
        with self.log.open("rb") as lines:
            size = lines.seek(0, 2)
            lines.seek(max(0, size - TAIL))
            found = lines.read().decode(errors="replace").strip().splitlines()
        return found[-1].strip() if found else "(empty)"
