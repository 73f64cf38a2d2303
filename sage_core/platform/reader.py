"""What can be asked of the store, inside a transaction or outside."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import msgspec

from sage_core.common.errors import UsageError, suggest
from sage_core.common.records import Job, JobState, RunStatus
from sage_core.platform.cluster import ClusterReader
from sage_core.platform.database import Database, Row
from sage_core.platform.records import AttemptRow, FileDigest, JobRow, Pulse, StoredRun, WorkerRow
from sage_core.platform.schedules import ScheduleReader
from sage_core.platform.upkeep import UpkeepReader

_RUN = StoredRun.__struct_fields__
_JOB = JobRow.__struct_fields__
_ATTEMPT = AttemptRow.__struct_fields__
_WORKER = WorkerRow.__struct_fields__
_FILE = FileDigest.__struct_fields__
_encode = msgspec.json.Encoder().encode


def listed(values: Iterable[Any]) -> str:
    """Write a list as the one JSON parameter the statements expect."""
    return _encode(list(values)).decode()


def job_row(row: Row) -> JobRow:
    """Read a full job."""
    values = dict(zip(_JOB, row, strict=True))
    # SQLite has no booleans, and RETURNING gives a whole REAL back as an integer.
    values["reused"], values["rank"] = bool(values["reused"]), float(values["rank"])
    return JobRow(**values)


def claimed_job(row: Row) -> Job:
    """Read the part of a job that its worker needs; the first columns of a full job."""
    (id, run_id, stage, part, state, fence, attempt, max_attempts, start, stop) = row[:10]
    return Job(
        id=id,
        run_id=run_id,
        stage=stage,
        part=part,
        state=state,
        fence=fence,
        attempt=attempt,
        max_attempts=max_attempts,
        start=start,
        stop=stop,
    )


class Reader(ClusterReader, ScheduleReader, UpkeepReader):
    """The store's questions; each is one statement and sees one consistent state."""

    def __init__(self, database: Database) -> None:
        self._db = database

    @property
    def url(self) -> str:
        """The store's URL without its password."""
        return self._db.url

    def run(self, id: str) -> StoredRun:
        """Find a run by its id or by a prefix that only one run has."""
        rows = self._db.fetch("run_get", {"id": id})
        if not rows:
            rows = self._db.fetch("run_get", {"id": self._complete(id)})
        return StoredRun(**dict(zip(_RUN, rows[0], strict=True)))

    def _complete(self, prefix: str) -> str:
        found = [row[0] for row in self._db.fetch("run_prefix", {"prefix": prefix, "limit": 6})] if prefix else []
        if len(found) == 1:
            return str(found[0])
        if found:
            shown = ", ".join(found[:5]) + (", …" if len(found) > 5 else "")
            raise UsageError(f"{prefix!r} is the start of several runs: {shown}", "give more of the id")
        recent = [row[0] for row in self._db.fetch("run_prefix", {"prefix": "", "limit": 200})]
        known = "" if recent else " The store holds no runs."
        raise UsageError(f"No run has the id {prefix!r}.{suggest(prefix, recent)}{known}", "see: sage runs list")

    def runs(self, limit: int = 50, *, status: RunStatus | None = None, workflow: str | None = None) -> list[StoredRun]:
        """List runs, newest first."""
        rows = self._db.fetch("run_list", {"limit": limit, "status": status, "workflow": workflow})
        return [StoredRun(**dict(zip(_RUN, row, strict=True))) for row in rows]

    def jobs(self, run_id: str, *, stages: Sequence[str] | None = None) -> list[JobRow]:
        """List a run's jobs in the order of their ids."""
        if stages is None:
            return [job_row(row) for row in self._db.fetch("jobs", {"of_run": run_id})]
        rows = self._db.fetch("jobs_stages", {"of_run": run_id, "stages": listed(stages)})
        return [job_row(row) for row in rows]

    def edges(self, run_id: str) -> list[tuple[int, int]]:
        """List the pairs (before, after) of a run's jobs."""
        return [(row[0], row[1]) for row in self._db.fetch("edges", {"of_run": run_id})]

    def counts(self, run_id: str) -> dict[JobState, int]:
        """Count a run's jobs by state; states without a job are left out."""
        return {row[0]: row[1] for row in self._db.fetch("counts", {"of_run": run_id})}

    def attempts(self, run_id: str) -> list[AttemptRow]:
        """List the ended attempts of a run's jobs, oldest first within each job."""
        rows = self._db.fetch("attempts", {"of_run": run_id})
        return [AttemptRow(**dict(zip(_ATTEMPT, row, strict=True))) for row in rows]

    def results(self, keys: Iterable[str]) -> dict[str, bytes]:
        """Fetch stored results; unknown keys are left out."""
        return {row[0]: row[1] for row in self._db.fetch("results", {"keys": listed(keys)})}

    def memo_get(self, keys: Iterable[str]) -> dict[str, bytes]:
        """Fetch remembered values; unknown keys are left out."""
        return {row[0]: row[1] for row in self._db.fetch("memos", {"keys": listed(keys)})}

    def file_digests(self, paths: Iterable[str]) -> dict[str, FileDigest]:
        """Fetch what is known of these files; the caller compares size, time and inode."""
        rows = self._db.fetch("files", {"keys": listed(paths)})
        return {row[0]: FileDigest(**dict(zip(_FILE, row, strict=True))) for row in rows}

    # ------------------------------------------------------------ what is looked at again and again

    def pulse(self, run_id: str) -> Pulse | None:
        """How far a run is; None when there is no such run."""
        for status, session, supervisor, failed, left in self._db.fetch("run_pulse", {"of_run": run_id}):
            return Pulse(status=status, session=session, supervisor=supervisor, failed=bool(failed), left=bool(left))
        return None

    def runs_over(self, queue: str, *, limit: int = 8) -> list[str]:
        """Runs without a driver that nobody has ended although nothing of them is left to run, oldest first."""
        return [row[0] for row in self._db.fetch("runs_over", {"queue": queue, "limit": limit})]

    def runs_unheard(self, *, for_ms: int, limit: int = 64) -> list[str]:
        """Runs that ended at least `for_ms` ago and whose end no plugin has been told, oldest first."""
        return [row[0] for row in self._db.fetch("runs_unheard", {"for_ms": for_ms, "limit": limit})]

    def claimable(self, queue: str, *, node: str = "", fits: Sequence[str] = (), limit: int = 1) -> int:
        """Count the jobs that a claim would find now, up to `limit`; `fits` are needs that the node can meet."""
        values = {"queue": queue, "on_node": node, "fits": listed(fits), "limit": limit, "anyway": True}
        return int(self._db.fetch("claimable", values)[0][0])

    def needs_waiting(self) -> list[str]:
        """Needs of the jobs that are ready and need anything."""
        return [row[0] for row in self._db.fetch("needs_waiting", {})]

    def waits(self, queue: str, *, fits: Sequence[str] = (), within_ms: int = 0) -> bool:
        """Whether a job of the queue that is not paused is ready, or will be within that time, wherever it may run."""
        return bool(self._db.fetch("waits", {"queue": queue, "fits": listed(fits), "within_ms": within_ms}))

    def next_run_at(self, queue: str) -> int | None:
        """Milliseconds until the first ready job of a queue is due, less than 0 where one is; None without any."""
        moment: int | None = self._db.fetch("due_later", {"queue": queue, "run_id": None})[0][0]
        return moment

    def busy(self, workers: Sequence[str]) -> int:
        """Count the jobs that these workers hold."""
        return int(self._db.fetch("busy", {"workers": listed(workers)})[0][0])

    def is_running(self, queue: str) -> bool:
        """Whether a job of the queue is in the hands of a worker, here or elsewhere."""
        return bool(self._db.fetch("queue_running", {"queue": queue}))

    def tried(self, workers: Sequence[str]) -> int:
        """Count the attempts of these workers that have ended; reads the whole history."""
        return int(self._db.fetch("tried", {"workers": listed(workers)})[0][0])

    def holds(self, job_id: int, fence: int) -> bool:
        """Whether an attempt still owns its job, and has time left."""
        return bool(self._db.fetch("holds", {"job_id": job_id, "fence": fence}))

    def live_workers(self) -> list[WorkerRow]:
        """List the processes that have not said goodbye; a killed one stays until `release_worker` or `stop_worker`."""
        rows = self._db.fetch("workers_live", {})
        return [WorkerRow(**dict(zip(_WORKER, row, strict=True))) for row in rows]

    def now(self) -> int:
        """The database's clock, in ms: the only one the protocol knows."""
        moment: int = self._db.fetch("now", {})[0][0]
        return moment
