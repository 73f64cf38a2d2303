"""Writes that belong together: a transaction leaves all of them or none."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

import msgspec

from sage_core.common.errors import StaleAttempt, StoreError, UsageError
from sage_core.common.records import RunStatus
from sage_core.platform.attempts import Ending, Held, held_from, history_row, settle_row
from sage_core.platform.cluster import ClusterWriter
from sage_core.platform.database import Dialect, Row, Step
from sage_core.platform.reader import Reader, job_row, listed
from sage_core.platform.records import Completion, FileDigest, JobRow, NewJob, NewRun, OnConflict, StoredRun
from sage_core.platform.schedules import ScheduleWriter
from sage_core.platform.upkeep import UpkeepWriter


class Transaction(ClusterWriter, ScheduleWriter, UpkeepWriter, Reader):
    """One open write transaction; made by `JobStore.transaction` and useless after it."""

    def insert_run(self, run: NewRun, *, on_conflict: OnConflict = "error") -> str | None:
        """Add a run; returns the run that has its unique or idempotency key instead, when that one is kept.

        Args:
            on_conflict: ``ignore`` keeps the run that has the key, ``replace`` cancels it where it is unfinished and
                only the unique key is shared, ``error`` raises `UsageError`. An id that exists is always refused.
        """
        fields = {name: getattr(run, name) for name in NewRun.__struct_fields__}
        keys = {"idempotency_key": run.idempotency_key, "unique_key": run.unique_key}
        while self._db.write("run_insert", fields) != 1:
            if self._db.fetch("run_get", {"id": run.id}):
                raise StoreError(self.url, f"run {run.id} exists (refused by a constraint)")
            found = [str(row[0]) for row in self._db.fetch("run_of_keys", keys)]
            if not found:
                # Whoever had the key has ended since.
                continue
            if on_conflict == "ignore":
                return found[0]
            holder = self.run(found[0])
            same = run.idempotency_key is not None and holder.idempotency_key == run.idempotency_key
            if on_conflict == "error" or same:
                raise self._key_taken(run, holder, same=same)
            # Another process that replaces it too may be quicker; then its run is replaced in turn.
            self.finish_run(holder.id, "cancelled", error=f"replaced by run {run.id}")
        return None

    def _key_taken(self, run: NewRun, holder: StoredRun, *, same: bool) -> UsageError:
        which, key = ("idempotency", run.idempotency_key) if same else ("unique", run.unique_key)
        return UsageError(
            f"Run {holder.id} ({holder.status}) has the {which} key {key!r} already.",
            "use another key, or say what to do: ignore keeps that run, replace cancels it while it is unfinished",
        )

    def drive_run(self, run_id: str, worker: str, *, session: int) -> bool:
        """Say who drives the run from here on; False when it has ended or a later session drives it."""
        return self._db.write("run_drive", {"run_id": run_id, "worker": worker, "in_session": session}) == 1

    def finish_run(
        self,
        run_id: str,
        status: RunStatus,
        outputs: bytes | None = None,
        error: str = "",
        *,
        session: int | None = None,
    ) -> bool:
        """End a run, and cancel what is left of its jobs.

        Returns False when it has ended already, or when `session` is not the one that drives it.
        """
        fields = {"run_id": run_id, "new_status": status, "new_outputs": outputs, "new_error": error}
        if self._db.write("run_finish", {**fields, "in_session": session}) != 1:
            return False
        # Again until nothing is left: a job that was held may have added others before it could be cancelled.
        while rows := self._db.write_fetch("held_left", {"of_run": run_id}):
            self._db.write("jobs_cancel", {"ids": listed(row[0] for row in rows)})
            ran = [held_from(row) for row in rows if row[-1] == "running"]
            self._db.write_each("attempt_insert", [history_row(held, "cancelled") for held in ran])
        return True

    def insert_jobs(self, jobs: Sequence[NewJob]) -> list[int]:
        """Add jobs, ready to be claimed, and return their ids; a stage has each part once."""
        return self._db.insert_each("job_insert", map(msgspec.structs.asdict, jobs))

    def insert_edges(self, edges: Sequence[tuple[int, int]]) -> None:
        """Order jobs as (before, after); each `after` is blocked until its unfinished predecessors are released."""
        if not edges:
            return
        states = self._db.write_fetch("before_states", {"ids": listed({before for before, _ in edges})})
        done = {id for id, state in states if state == "done"}
        rows = [{"before_id": b, "after_id": a, "released": b in done} for b, a in edges]
        self._db.write_each("edge_insert", rows)
        waits = Counter(a for b, a in edges if b not in done)
        blocked = self._db.write_each("job_block", [{"job_id": a, "n": n} for a, n in sorted(waits.items())])
        if waits and blocked != len(waits):
            raise StoreError(self.url, "an edge leads to a job that has been claimed or does not exist")

    def finish(
        self,
        job_id: int,
        fence: int | None,
        *,
        result_key: str | None,
        session: int,
        reused: bool = False,
        failures: int = 0,
    ) -> None:
        """Record a job's result, if the attempt still owns the job; `fence` None finishes one that nobody claimed.

        Args:
            failures: rows that failed and were skipped.
        """
        if fence is None:
            values = {"job_id": job_id, "new_result_key": result_key, "new_reused": reused, "new_session": session}
            if not self._db.write_fetch("finish_unclaimed", {**values, "failures": failures}):
                raise StaleAttempt(self.url, job_id, 0)
            return
        ended = Completion(job_id=job_id, fence=fence, run_id="", session=session, result_key=result_key)
        steps = completed([msgspec.structs.replace(ended, reused=reused, failures=failures)], self._db.dialect)
        if not self._db.together(steps)[0]:
            raise StaleAttempt(self.url, job_id, fence)

    def complete(self, ends: Sequence[Completion]) -> tuple[set[int], list[JobRow]]:
        """Record the results of attempts that still own their jobs, and release what waited for these alone.

        Returns the jobs of the other attempts, of which nothing is recorded, and the jobs that became ready.
        """
        ids = {end.job_id for end in ends}
        if not ids:
            return set(), []
        steps = completed(ends, self._db.dialect)
        done, *_, freed = self._db.together([*steps, ("edge_release", {"ids": listed(ids)})])
        return ids - {row[0] for row in done}, self._release(freed)

    def put_result(self, key: str, body: bytes, *, run_id: str) -> None:
        """Keep a result under its key; the first one stays."""
        result = {"key": key, "run_id": run_id, "body": body, "bytes": len(body)}
        self._db.together([("result_insert", [result])])

    def release(self, done: Sequence[int]) -> list[JobRow]:
        """Count finished jobs off their successors, once, and return those that became ready."""
        return self._release(self._db.write_fetch("edge_release", {"ids": listed(done)}))

    def _release(self, edges: Sequence[Row]) -> list[JobRow]:
        if not edges:
            return []
        freed = Counter(row[0] for row in edges)
        # One order for all, so that two releases cannot lock each other out.
        rows = [self._db.write_fetch("job_release", {"job_id": id, "n": n})[0] for id, n in sorted(freed.items())]
        return [job for job in map(job_row, rows) if job.state == "ready" and job.deps_left == 0]

    def forget_results(self, keys: Iterable[str]) -> int:
        """Drop results that turned out to be damaged; `JobStore.resume_run` lets their jobs run again."""
        return self._db.write("results_forget", {"keys": listed(keys)})

    def reopen_lost(self, run_id: str) -> int:
        """Let done jobs whose result is gone run again, before their successors, and whatever else is not done."""
        lost = [row[0] for row in self._db.write_fetch("jobs_lost", {"of_run": run_id})]
        waits = Counter(row[0] for row in self._db.write_fetch("edge_restore", {"ids": listed(lost)}))
        self._db.write_each("job_restore", [{"job_id": id, "n": n} for id, n in sorted(waits.items())])
        self._db.write("jobs_resume", {"of_run": run_id})
        return len(lost)

    def memo_put(self, items: Mapping[str, bytes], *, job_id: int | None = None, fence: int | None = None) -> None:
        """Remember values, the first of each key; with a job, only while the attempt owns it."""
        if job_id is not None:
            self.held(job_id, fence if fence is not None else 0)
        self._db.write_each("memo_insert", [{"key": key, "value": value} for key, value in items.items()])

    def file_digest_put(self, rows: Iterable[FileDigest]) -> None:
        """Keep the digests of files as they are now."""
        self._db.write_each("file_insert", map(msgspec.structs.asdict, rows))

    def held(self, job_id: int, fence: int) -> Held:
        """Return the running job this attempt owns, and keep it from others until the transaction ends."""
        rows = self._db.write_fetch("held_one", {"job_id": job_id, "fence": fence})
        if not rows:
            raise StaleAttempt(self.url, job_id, fence)
        return held_from(rows[0])

    def settle(self, endings: Sequence[Ending], *, history: bool = True) -> int:
        """End attempts that brought no result, and write their history."""
        if not endings:
            return 0
        settled = self._db.write_each("settle", map(settle_row, endings))
        if not history:
            return settled
        self._db.write_each("attempt_insert", [history_row(e.held, e.outcome, e.error) for e in endings])
        return settled


def completed(ends: Sequence[Completion], dialect: Dialect) -> list[Step]:
    """The statements that record ends of attempts; the first returns the jobs of those that still own theirs."""
    # Everybody locks jobs in this order.
    rows = [msgspec.structs.asdict(end) for end in sorted(ends, key=lambda end: end.job_id)]
    if dialect == "postgresql":
        return [("finish", rows)]
    steps: list[Step] = [("finish", rows), ("finish_history", rows)]
    results = [row for row in rows if row["body"] is not None]
    return [*steps, ("finish_result", results)] if results else steps
