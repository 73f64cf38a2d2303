"""The work that is disturbed: runs that fan out and collect, and a worker's way through one job of them."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import msgspec

from sage_core.common.errors import StaleAttempt, StoreUnavailable
from sage_core.common.records import Job
from sage_core.platform.artifacts import ArtifactStore
from sage_core.platform.records import Completion, NewJob, NewRun
from sage_core.platform.store import JobStore
from sage_core.platform.transaction import Transaction
from tests.chaos.history import History, result_key

#: A lease that no trial outlives, and one that is over when it begins.
LONG, OVER = 600_000, 0
#: Attempts that no chaos uses up.
TRIES = 1_000
#: Seconds between two looks where nothing tells when to look.
GLANCE = 0.005


class Story(Protocol):
    """Something that is told where a worker stands in a job."""

    def __call__(self, where: str) -> None: ...


def submit(store: JobStore, run: str, parts: int, *, queue: str = "default", slots: int = 0) -> None:
    """Queue a run: an opener that will call for `parts` parts, and the collect that waits for it, and later for them.

    Args:
        slots: how many parts may run at once; 0 is any number.
    """
    with store.transaction() as tx:
        tx.insert_run(NewRun(id=run, workflow="chaos", status="running", params=b"%d %d" % (parts, slots), queue=queue))
        if slots:
            tx.make_slots(run, slots)
        job = NewJob(run_id=run, stage="open", queue=queue, max_attempts=TRIES)
        collect = NewJob(run_id=run, stage="collect", queue=queue, max_attempts=TRIES)
        before, after = tx.insert_jobs([job, collect])
        tx.insert_edges([(before, after)])


class Work:
    """One worker: claims jobs, does them, and says in the history what came of it."""

    def __init__(
        self,
        store: JobStore,
        history: History,
        name: str,
        *,
        queue: str = "default",
        lease_ms: int = LONG,
        files: ArtifactStore | None = None,
        secret: bytes = b"",
        pad: int = 0,
        story: Story | None = None,
    ) -> None:
        self.store = store
        self.name = name
        self._history = history
        self._queue = queue
        self._lease_ms = lease_ms
        self._files = files
        self._secret = secret
        self._pad = pad
        self._story = story or (lambda where: None)

    def claim(self, limit: int = 1) -> list[Job]:
        """Take jobs, and say so."""
        jobs = self.store.claim(self.name, lease_ms=self._lease_ms, queue=self._queue, limit=limit)
        for job in jobs:
            self._history.say("claimed", self.name, job)
        self._story("claimed")
        return jobs

    def renew(self, job: Job) -> bool:
        """Prolong a lease; False when it is not ours any more."""
        return bool(self.store.renew([(job.id, job.fence)], self._lease_ms))

    def attempt(self, job: Job) -> bool:
        """Do a job and record it, as often as it takes to learn whether it was recorded."""
        while True:
            try:
                self.complete(job)
            except StaleAttempt:
                self._history.say("refused", self.name, job)
                return False
            except StoreUnavailable:
                self._history.say("unavailable", self.name, job)
                # A database that is away does not tell when it is back.
                time.sleep(GLANCE)
            else:
                self._history.say("accepted", self.name, job)
                return True

    def complete(self, job: Job) -> None:
        """Do a job once, and record all that follows from it in one transaction."""
        body = self.compute(job)
        self._story("computed")
        with self.store.transaction() as tx:
            self.record(tx, job, body)
            self._story("recorded")
        self._story("committed")

    def record(self, tx: Transaction, job: Job, body: bytes) -> None:
        """Write a job's result and what follows from it."""
        tx.put_result(result_key(job.id, job.fence), body, run_id=job.run_id)
        tx.finish(job.id, job.fence, result_key=result_key(job.id, job.fence), session=1)
        if job.stage == "open":
            self.expand(tx, job)
        tx.release([job.id])
        if job.stage == "collect":
            tx.finish_run(job.run_id, "succeeded", outputs=body)

    def expand(self, tx: Transaction, job: Job) -> None:
        """Insert the parts that an opener calls for, between it and the collect."""
        parts, slots = map(int, tx.run(job.run_id).params.split())
        new = NewJob(
            run_id=job.run_id,
            stage="part",
            queue=self._queue,
            max_attempts=TRIES,
            limit_key=job.run_id if slots else None,
        )
        ids = tx.insert_jobs([msgspec.structs.replace(new, part=part) for part in range(parts)])
        [collect] = tx.jobs(job.run_id, stages=["collect"])
        tx.insert_edges([(id, collect.id) for id in ids])

    def compute(self, job: Job) -> bytes:
        """The job's own work; what it does outside the store may happen more than once."""
        self._history.say("ran", self.name, job)
        if job.stage == "collect":
            parts = self.store.jobs(job.run_id, stages=["part"])
            return b"%d" % len(self.store.results([part.result_key or "" for part in parts]))
        if self._files is None:
            return b"x" * self._pad
        file = self._files.new_file()
        file.write_bytes(b"%s %d" % (job.stage.encode(), job.part) + self._secret)
        return self._files.publish_file(file).encode()

    def batch(self, jobs: Sequence[Job]) -> None:
        """Do parts, and record them in one transaction; those that are ours no more are left out of it."""
        bodies = {job.id: self.compute(job) for job in jobs}
        with self.store.transaction() as tx:
            refused, _ = tx.complete([_completion(job, bodies[job.id]) for job in jobs])
        for job in jobs:
            self._history.say("refused" if job.id in refused else "accepted", self.name, job)

    def step(self, limit: int = 1) -> bool:
        """Claim and do what there is, parts in a batch; False when there was nothing."""
        jobs = self.claim(limit)
        held = [job for job in jobs if self.renew(job)]
        parts = [job for job in held if job.stage == "part"]
        if len(parts) > 1:
            try:
                self.batch(parts)
            except StoreUnavailable:
                # Each for itself: some may be recorded, and are refused then.
                held = [*(job for job in held if job.stage != "part"), *parts]
            else:
                held = [job for job in held if job.stage != "part"]
        for job in held:
            self.attempt(job)
        return bool(jobs)

    def drain(self, run: str) -> None:
        """Work alone until a run has ended, or until nothing of it will ever become claimable."""
        while self.store.run(run).status == "running":
            if self.step():
                continue
            due = self.store.next_due(queue=self._queue)
            if due is None:
                return
            time.sleep(min(GLANCE, due / 1000))


def _completion(job: Job, body: bytes) -> Completion:
    key = result_key(job.id, job.fence)
    return Completion(job_id=job.id, fence=job.fence, run_id=job.run_id, session=1, result_key=key, body=body)


def live_files(store: JobStore, runs: list[str]) -> set[str]:
    """Digests of the files that recorded results name."""
    keys = [job.result_key for run in runs for job in store.jobs(run) if job.result_key and job.stage != "collect"]
    return {body.decode() for body in store.results(keys).values()}


def artifacts(folder: Path) -> ArtifactStore:
    """The files of a trial."""
    return ArtifactStore(folder / "artifacts")
