"""The worker processes of one run: started, kept alive by heartbeats, noticed when they die, stopped at the end."""

from __future__ import annotations

import subprocess
import sys
import uuid
from pathlib import Path

from sage_core.common.config import Config
from sage_core.common.errors import SageError
from sage_core.common.host import Host
from sage_core.common.paths import Paths
from sage_core.common.telemetry import log
from sage_core.platform.store import JobStore

#: Seconds a worker may take to give its job back after SIGTERM before it is killed.
GRACE = 5.0
#: Workers of one run that may die before their run is given up.
DEATHS = 6


class Crew:
    """Worker processes, as children in this process's group."""

    def __init__(
        self, run_id: str, size: int, *, url: str, folder: Path, host: Host, paths: Paths, config: Config
    ) -> None:
        self._run_id = run_id
        self._size = size
        self._lease_ms = int(config.workers.lease * 1000)
        self._paths = paths
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
        self._paths.logs.mkdir(parents=True, exist_ok=True)
        while len(self._workers) < self._size:
            worker = uuid.uuid4().hex
            with (self._paths.logs / "workers.log").open("ab") as out:
                self._workers[worker] = subprocess.Popen(
                    [*self._command, f"--id={worker}", f"--parent={parent}"],
                    stdin=subprocess.DEVNULL,
                    stdout=out,
                    stderr=out,
                )

    def bury(self, store: JobStore) -> int:
        """Release the jobs of workers that have died; returns how many died."""
        dead = {worker: child.returncode for worker, child in self._workers.items() if child.poll() is not None}
        for worker, code in dead.items():
            del self._workers[worker]
            if code != 0:
                self.deaths += 1
                log("worker_died", worker=worker, code=code)
            store.release_worker(worker, f"worker process ended with status {code}")
        if self.deaths > DEATHS:
            raise SageError(
                f"{self.deaths} worker processes of run {self._run_id} died; see {self._paths.logs}/workers.log"
            )
        return len(dead)

    def all_alive(self) -> bool:
        """Whether no worker has ended since the last look."""
        return all(child.poll() is None for child in self._workers.values())

    def beat(self, store: JobStore) -> None:
        """Prolong the leases of every job these workers hold."""
        held = [job for job in store.jobs(self._run_id) if job.state == "running" and job.worker in self._workers]
        store.renew([(job.id, job.fence) for job in held], self._lease_ms)

    def stop(self, store: JobStore, *, grace: float = GRACE) -> None:
        """End all workers: they give their jobs back, or are killed after `grace` seconds."""
        for child in self._workers.values():
            child.terminate()
        for worker, child in self._workers.items():
            try:
                child.wait(grace)
            except subprocess.TimeoutExpired:
                child.kill()
                child.wait()
            store.release_worker(worker, "stopped", refund=True)
        self._workers.clear()

    def kill(self) -> None:
        """End all workers now."""
        for child in self._workers.values():
            child.kill()
