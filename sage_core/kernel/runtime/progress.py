"""What a run tells while it is driven: that workers are about to start, how far it is, that it is being stopped."""

from __future__ import annotations

import time
from collections.abc import Callable

from sage_core.common.records import JobState, Record
from sage_core.kernel.runtime.prepared import Prepared
from sage_core.kernel.runtime.preview import Decision
from sage_core.kernel.runtime.results import decode_result
from sage_core.platform.records import JobRow, StoredRun
from sage_core.platform.store import JobStore


class Planned(Record):
    """Worker processes are at work on partitions that are known by now."""

    workers: int
    #: Per step, what is reused and what is left to do.
    steps: dict[str, Decision]


class Progress(Record):
    """How far a run is."""

    #: Jobs by state.
    counts: dict[JobState, int]
    #: Partitions that are done, and that are known.
    parts_done: int
    parts_known: int
    #: Source rows of partitions that this session computed.
    rows_computed: int
    #: Stages with a job in the hands of a worker, by the name of their first step.
    running: tuple[str, ...]
    #: Tokens this session has had generated.
    tokens: int
    seconds: float


class Stopping(Record):
    """A signal asked the run to stop."""

    run_id: str
    #: Nothing is waited for any more.
    at_once: bool


Event = Planned | Progress | Stopping
Watch = Callable[[Event], None]


class Gauge:
    """Reads a run's progress from the store; counts as done by this session only what was neither found nor older.

    Args:
        worker: this process, whose answers `generated` counts while they are being written.
        generated: tokens generated in this process so far.
    """

    def __init__(
        self, store: JobStore, run: StoredRun, prepared: Prepared, *, worker: str, generated: Callable[[], int]
    ) -> None:
        self._store = store
        self._run = run
        self._worker = worker
        self._generated = generated
        steps = prepared.graph.steps
        # Models are reached through the context alone.
        self._talkers = {
            name
            for name, stage in prepared.stages.items()
            if any(steps[step].signature.wants_context or steps[step].signature.context_in for step in stage.steps)
        }
        self._counted: set[int] = set()
        self._elsewhere = 0
        self._started = time.monotonic()

    def read(self) -> Progress:
        """Look at the jobs; one statement, and one more when workers have finished jobs that may have generated."""
        jobs = self._store.jobs(self._run.id)
        counts: dict[JobState, int] = {}
        for job in jobs:
            counts[job.state] = counts.get(job.state, 0) + 1
        parts = [job for job in jobs if job.stop > job.start]
        computed = [job for job in jobs if job.state == "done" and not job.reused and job.session == self._run.session]
        self._count_tokens(computed)
        return Progress(
            counts=counts,
            parts_done=sum(job.state == "done" for job in parts),
            parts_known=len(parts),
            rows_computed=sum(job.stop - job.start for job in computed),
            running=tuple(dict.fromkeys(job.stage for job in jobs if job.state == "running")),
            tokens=self._generated() + self._elsewhere,
            seconds=time.monotonic() - self._started,
        )

    def _count_tokens(self, computed: list[JobRow]) -> None:
        fresh = {
            job.id: job.result_key
            for job in computed
            if job.stage in self._talkers and job.worker != self._worker and job.id not in self._counted
        }
        if not fresh:
            return
        bodies = self._store.results([key for key in fresh.values() if key])
        self._elsewhere += sum(decode_result(body).tokens.get("completion", 0) for body in bodies.values())
        self._counted.update(fresh)
