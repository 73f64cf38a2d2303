"""How soon a waiting worker has a job that another process enqueues: from before the commit to the end of the claim."""

from __future__ import annotations

import random
import subprocess
import sys
import time
import uuid

import msgspec

from sage_bench.home import clean_environment
from sage_bench.measures.queue import StoreName, place
from sage_bench.results import Figure, Measured
from sage_bench.suite import Bench
from sage_core import SageError
from sage_core.platform.records import NewJob, NewRun
from sage_core.platform.store import JobStore

#: Seconds between two looks of a worker, when it has just worked and when it has waited for some time.
GLANCE, DROWSY = 0.005, 0.1

WAIT = """\
import sys, time
from sage_core.platform.store import JobStore
with JobStore.open(sys.argv[1]) as store:
    store.changed()
    print("ready", flush=True)
    while True:
        while not store.changed():
            time.sleep(float(sys.argv[2]))
        for job in store.claim("waiting", lease_ms=60_000, queue="pickup"):
            print(time.monotonic_ns(), flush=True)
"""


class Pickup(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One waiting worker, one job at a time."""

    store: StoreName
    jobs: int = 200
    #: A running server, instead of one of the pgserver wheel.
    postgres: str = ""

    def measure(self, bench: Bench) -> Measured:
        """Enqueue a job, wait until it is claimed, and again."""
        with place(self.store, bench.work, self.postgres) as (url, facts), JobStore.open(url) as store:
            figures = [
                *self._figures(store, url, GLANCE, "awake"),
                *self._figures(store, url, DROWSY, "drowsy"),
            ]
        looks = {"awake": f"looks every {GLANCE} s, as a worker that has just worked", "drowsy": f"every {DROWSY} s"}
        return Measured(figures=tuple(figures), facts={**facts, "jobs": self.jobs, **looks})

    def _figures(self, store: JobStore, url: str, glance: float, called: str) -> list[Figure]:
        worker = subprocess.Popen(
            [sys.executable, "-c", WAIT, url, str(glance)], stdout=subprocess.PIPE, text=True, env=clean_environment()
        )
        try:
            assert worker.stdout is not None
            worker.stdout.readline()
            waits = sorted([self._one(store, worker) for _ in range(self.jobs + 5)][5:])
        finally:
            worker.kill()
            worker.communicate()
        return [
            Figure(name=f"{called}: p{share}", unit="ms", values=(waits[len(waits) * share // 100],), better="lower")
            for share in (50, 99)
        ]

    def _one(self, store: JobStore, worker: subprocess.Popen[str]) -> float:
        """Milliseconds from the commit of an enqueue until the worker has the job."""
        assert worker.stdout is not None
        # At any moment between two looks of the worker.
        time.sleep(random.uniform(0.02, 0.13))
        with store.transaction() as tx:
            run = uuid.uuid4().hex
            tx.insert_run(NewRun(id=run, workflow="jobs", status="running", queue="pickup"))
            tx.insert_jobs([NewJob(run_id=run, stage="nothing", queue="pickup")])
            enqueued = time.monotonic_ns()
        line = worker.stdout.readline()
        if not line:
            raise SageError(f"the waiting worker ended with status {worker.wait()}")
        return (int(line) - enqueued) / 1e6
