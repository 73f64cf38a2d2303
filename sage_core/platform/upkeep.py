"""What the store knows of the past: jobs by what became of them, work opened again, old rows removed; mixed in."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Collection, Iterator
from typing import Any

from sage_core.common.errors import UsageError
from sage_core.common.records import JobState, Record
from sage_core.platform.attempts import held_of, history_row
from sage_core.platform.cluster import Handle
from sage_core.platform.records import AttemptRow, JobRow

_JOB = JobRow.__struct_fields__
_ATTEMPT = AttemptRow.__struct_fields__
#: Results whose bodies are read together.
PAGE = 200


class Removed(Record):
    """How many rows of each kind went."""

    runs: int = 0
    results: int = 0
    memos: int = 0
    fires: int = 0
    workers: int = 0


class UpkeepReader:
    """Questions about the past."""

    def jobs_found(
        self: Handle,
        *,
        state: JobState | None = None,
        run_id: str | None = None,
        queue: str | None = None,
        limit: int = 50,
    ) -> list[JobRow]:
        """List jobs of any run, newest first."""
        values = {"in_state": state, "of_run": run_id, "in_queue": queue, "limit": limit}
        return [_job(row) for row in self._db.fetch("jobs_found", values)]

    def job(self: Handle, job_id: int) -> JobRow:
        """Find one job."""
        for row in self._db.fetch("job_get", {"job_id": job_id}):
            return _job(row)
        raise UsageError(f"No job has the id {job_id}.", "see: sage jobs list")

    def attempts_of(self: Handle, job_id: int) -> list[AttemptRow]:
        """List the ended attempts of one job, oldest first."""
        rows = self._db.fetch("attempts_of", {"job_id": job_id})
        return [AttemptRow(**dict(zip(_ATTEMPT, row, strict=True))) for row in rows]

    def result_bodies(self: Handle) -> Iterator[bytes]:
        """Read every result there is."""
        after = ""
        while page := self._db.fetch("results_page", {"after": after, "limit": PAGE}):
            yield from (row[1] for row in page)
            after = page[-1][0]

    def old_blobs(self: Handle, keep_ms: int) -> set[str]:
        """Digests of files that have been shared for longer."""
        return {row[0] for row in self._db.fetch("blobs_old", {"keep_ms": keep_ms})}


class UpkeepWriter:
    """Writes about the past, inside a transaction."""

    def reopen(self: Handle, job_ids: Collection[int]) -> None:
        """Make done jobs ready again, in the order of their edges; all that follows from one must be among them."""
        ids = {"ids": json.dumps(sorted(job_ids))}
        self._db.write("jobs_reopen", ids)
        waits = Counter(row[0] for row in self._db.write_fetch("edge_restore", ids))
        self._db.write_each("job_block", [{"job_id": id, "n": n} for id, n in sorted(waits.items())])

    def seize(self: Handle, job_id: int) -> JobRow:
        """Take a ready or running job from whoever has it, to be ended in this transaction under the fence it has now.

        Its history says that the attempt was cancelled, however the job is ended.
        """
        for row in self._db.write_fetch("job_seize", {"job_id": job_id}):
            job = _job(row)
            self._db.write_each("attempt_insert", [history_row(held_of(job), "cancelled", "cancelled")])
            return job
        state = [_job(row).state for row in self._db.fetch("job_get", {"job_id": job_id})]
        if not state:
            raise UsageError(f"No job has the id {job_id}.", "see: sage jobs list")
        way = "cancel what it waits for, or its run" if state == ["blocked"] else "see: sage jobs list --state running"
        raise UsageError(f"Job {job_id} is {state[0]}: only ready and running jobs can be cancelled.", way)

    def announced(self: Handle, run_id: str, session: int) -> None:
        """Say that the plugins have heard of a session's end."""
        self._db.write("run_announced", {"run_id": run_id, "in_session": session})

    def pin_run(self: Handle, run_id: str, *, pins: bytes, plan: bytes) -> None:
        """Let a run go on under other code."""
        self._db.write("run_pin", {"of_run": run_id, "new_pins": pins, "new_plan": plan})

    def remove_runs(self: Handle, *, keep_ms: int, results_ms: int) -> Removed:
        """Remove runs that ended longer ago, with their jobs, and then what only they needed.

        Args:
            results_ms: a result without a job goes only when it is older than this.
        """
        keep = {"keep_ms": keep_ms}
        return Removed(
            runs=self._db.write("runs_prune", keep),
            results=self._db.write("results_prune", {"keep_ms": results_ms}),
            fires=self._db.write("fires_prune", keep),
            workers=self._db.write("workers_prune", keep),
        )

    def remove_memos(self: Handle, *, keep_ms: int) -> int:
        """Remove values that were remembered longer ago."""
        return self._db.write("memos_prune", {"keep_ms": keep_ms})


def _job(row: tuple[Any, ...]) -> JobRow:
    values = dict(zip(_JOB, row, strict=True))
    return JobRow(**{**values, "reused": bool(values["reused"]), "rank": float(values["rank"])})
