"""What the parts of the `JobStore` contract suite share: handles on one database, and short ways to fill it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import pytest

from sage_core.common.records import Job
from sage_core.platform.records import JobRow, NewJob, NewRun
from sage_core.platform.store import JobStore

#: A lease that no test outlives, and one that is over when it begins: no test has to wait.
LONG, OVER = 600_000, 0


class Crash(Exception):
    """Stands for the process dying inside a transaction."""


def submit(
    store: JobStore,
    count: int = 1,
    *,
    run_id: str = "run",
    max_attempts: int = 3,
    delay_ms: int = 0,
    timeout_ms: int | None = None,
) -> list[int]:
    """Add a run whose only stage has `count` ready jobs; return their ids."""
    job = NewJob(run_id=run_id, stage="map", max_attempts=max_attempts, delay_ms=delay_ms, timeout_ms=timeout_ms)
    with store.transaction() as tx:
        tx.insert_run(NewRun(id=run_id, workflow="flow", status="running"))
        return tx.insert_jobs([msgspec.structs.replace(job, part=part) for part in range(count)])


def put(store: JobStore, *jobs: NewJob) -> list[int]:
    """Add jobs, and the runs they belong to where these are missing; return the jobs' ids."""
    with store.transaction() as tx:
        known = {run.id for run in tx.runs()}
        for id in dict.fromkeys(job.run_id for job in jobs):
            if id not in known:
                tx.insert_run(NewRun(id=id, workflow="flow", status="running"))
        return tx.insert_jobs(jobs)


def at_once(*actors: Callable[[], object]) -> None:
    """Run each in a thread of its own, all at the same time, and raise the first error of any."""
    broken: list[BaseException] = []
    start = threading.Barrier(len(actors))

    def act(actor: Callable[[], object]) -> None:
        try:
            start.wait()
            actor()
        except BaseException as error:  # noqa: BLE001 - a thread's error must reach the test
            broken.append(error)

    threads = [threading.Thread(target=act, args=(actor,)) for actor in actors]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if broken:
        raise broken[0]


def row(store: JobStore, job_id: int, run_id: str = "run") -> JobRow:
    """Return one job as it is now."""
    return next(job for job in store.jobs(run_id) if job.id == job_id)


def finish(store: JobStore, job: Job, key: str = "key") -> list[JobRow]:
    """Finish a claimed job with a result, and release its successors."""
    with store.transaction() as tx:
        tx.put_result(key, b"body", run_id=job.run_id)
        tx.finish(job.id, job.fence, result_key=key, session=1)
        return tx.release([job.id])


class StoreSuite:
    """Opens the handles; `make` opens one more on the database kept in `place`, an empty folder when a test begins."""

    def make(self, place: Path) -> JobStore:
        raise NotImplementedError(f"{type(self).__name__} must define make(place)")

    @pytest.fixture
    def store(self, tmp_path: Path) -> Iterator[JobStore]:
        with self.make(tmp_path) as store:
            yield store

    @pytest.fixture
    def other(self, tmp_path: Path, store: JobStore) -> Iterator[JobStore]:
        """A second handle, as another process has it."""
        with self.make(tmp_path) as other:
            yield other
