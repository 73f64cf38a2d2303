"""The worker processes of one run: started, kept alive by heartbeats, noticed when they die, stopped at the end."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
import uuid
from pathlib import Path

from sage_core.common.config import Config
from sage_core.common.errors import RunFailed
from sage_core.common.host import Host
from sage_core.common.paths import Paths
from sage_core.common.telemetry import log
from sage_core.platform.store import JobStore

#: Seconds workers may take to give their jobs back after SIGTERM before they are killed.
GRACE = 5.0
#: Workers of one run that may die before their run is given up.
DEATHS = 6
#: Bytes at the end of the workers' log in which its last line is looked for.
TAIL = 4096


class Crew:
    """Worker processes, as children in this process's group."""

    def __init__(
        self, run_id: str, size: int, *, url: str, folder: Path, host: Host, paths: Paths, config: Config
    ) -> None:
        self._run_id = run_id
        self._size = size
        self._lease_ms = int(config.workers.lease * 1000)
        self._log = paths.logs / "workers.log"
        self._command = [
            *(sys.executable, "-m", "sage_core.kernel.runtime.worker"),
            *(f"--project={paths.project}", f"--data={paths.data}", f"--runtime={paths.runtime}"),
            *(f"--store={url}", f"--run={run_id}", f"--folder={folder}"),
            *(f"--plugin={name}={module}" for name, module in host.modules().items()),
        ]
        self._workers: dict[str, subprocess.Popen[bytes]] = {}
        self.deaths = 0

    def fill(self, parent: int) -> None:
        """Start workers until there are as many as wanted."""
        self._log.parent.mkdir(parents=True, exist_ok=True)
        while len(self._workers) < self._size:
            worker = uuid.uuid4().hex
            with self._log.open("ab") as out:
                self._workers[worker] = subprocess.Popen(
                    [*self._command, f"--id={worker}", f"--parent={parent}"],
                    stdin=subprocess.DEVNULL,
                    stdout=out,
                    stderr=out,
                )

    def pids(self) -> list[int]:
        """Process ids of the workers that were not seen to end."""
        return [child.pid for child in self._workers.values()]

    def bury(self, store: JobStore) -> int:
        """Release the jobs of workers that have ended; returns how many.

        Raises `RunFailed` when more than `DEATHS` have died: what kills them is not in one job. A worker that ended
        with status 0 had nothing left to do and counts as no death.
        """
        ended = {worker: child for worker, child in self._workers.items() if child.poll() is not None}
        for worker, child in ended.items():
            del self._workers[worker]
            end = _end(child)
            if child.returncode != 0:
                self.deaths += 1
                log("worker_died", worker=worker, pid=child.pid, code=child.returncode)
                store.release_worker(worker, f"{end}; see {self._log}")
            else:
                store.release_worker(worker, end, refund=True)
        if self.deaths > DEATHS:
            raise RunFailed(
                self._run_id, f"{self.deaths} worker processes died; see {self._log}, which ends: {self._last_line()}"
            )
        return len(ended)

    def all_alive(self) -> bool:
        """Whether no worker has ended since the last look."""
        return all(child.poll() is None for child in self._workers.values())

    def beat(self, store: JobStore) -> None:
        """Prolong the leases of every job these workers hold."""
        held = [job for job in store.jobs(self._run_id) if job.state == "running" and job.worker in self._workers]
        store.renew([(job.id, job.fence) for job in held], self._lease_ms)

    def stop(self, store: JobStore, *, grace: float = GRACE) -> None:
        """End all workers: they give their jobs back, or are killed when `grace` seconds are over for all of them."""
        for child in self._workers.values():
            child.terminate()
        last = time.monotonic() + grace
        for worker, child in self._workers.items():
            try:
                child.wait(max(0.0, last - time.monotonic()))
            except subprocess.TimeoutExpired:
                child.kill()
                child.wait()
            store.release_worker(worker, "stopped", refund=True)
        self._workers.clear()

    def kill(self) -> None:
        """End all workers now."""
        for child in self._workers.values():
            child.kill()

    def _last_line(self) -> str:
        with self._log.open("rb") as lines:
            size = lines.seek(0, 2)
            lines.seek(max(0, size - TAIL))
            found = lines.read().decode(errors="replace").strip().splitlines()
        return found[-1].strip() if found else "(empty)"


def _end(child: subprocess.Popen[bytes]) -> str:
    code = child.returncode
    if code >= 0:
        return f"process {child.pid} ended with status {code}"
    name = signal.Signals(-code).name if -code in set(signal.Signals) else f"signal {-code}"
    memory = ", as the system does when memory runs out" if name == "SIGKILL" else ""
    return f"process {child.pid} was killed by {name}{memory}"
