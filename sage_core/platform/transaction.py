"""Writes that belong together: a transaction leaves all of them or none."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import msgspec

from sage_core.common.errors import StaleAttempt, StoreError, UsageError
from sage_core.common.records import RunStatus
from sage_core.platform.attempts import Ending, Held, held_from, history_row, settle_row
from sage_core.platform.cluster import ClusterWriter
from sage_core.platform.database import Row, Step
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
        given = listed([(job_id, fence, result_key, reused, session, failures)])
        if not self._db.together([("finish", {"given": given}), ("attempt_done", {"given": given})])[0]:
            raise StaleAttempt(self.url, job_id, fence)

    def complete(self, ends: Sequence[Completion]) -> tuple[set[int], list[JobRow]]:
        """Record the results of attempts that still own their jobs, and release what waited for these alone.

        Returns the jobs of the other attempts, of which nothing is recorded, and the jobs that became ready.
        """
        given = listed(
            (end.job_id, end.fence, end.result_key, False, end.session, end.failures)
            # Everybody locks jobs in this order.
            for end in sorted(ends, key=lambda end: end.job_id)
        )
        results = [_result(e, e.result_key, e.body) for e in ends if e.result_key is not None and e.body is not None]
        steps: list[Step] = [("finish", {"given": given}), ("attempt_done", {"given": given})]
        steps.append(("edge_release", {"ids": listed(end.job_id for end in ends)}))
        done, _, freed, *kept = self._db.together([*steps, *_put(results)])
        held = {row[0] for row in done}
        self._mind_scopes([result for result in results if result["job_id"] in held], kept)
        return {end.job_id for end in ends} - held, self._release(freed)

    def put_result(self, key: str, body: bytes, *, run_id: str, scope_run: str | None = None) -> None:
        """Keep a result under its key; the first one stays. One scoped to a run needs a key of that run's own."""
        nobody = Completion(job_id=0, fence=0, run_id=run_id, session=0, scope_run=scope_run)
        results = [{**_result(nobody, key, body), "job_id": None}]
        self._mind_scopes(results, self._db.together(_put(results)))

    def _mind_scopes(self, results: Sequence[Mapping[str, Any]], kept: Sequence[Sequence[Row]]) -> None:
        """Refuse a result whose key is taken by one that belongs to another run alone."""
        if sum(rows[0][0] for rows in kept) == len(results):
            return
        known = {result["key"]: result["scope_run"] for result in results}
        for key, scope in self._db.fetch("result_scopes", {"keys": listed(known)}):
            if scope not in (None, known[key]):
                raise StoreError(
                    self.url, f"result {key} belongs to run {scope} alone", "put the run's id into scoped keys"
                )

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
        """Make done jobs ready again whose result is gone, and count them as unfinished before their successors."""
        lost = [row[0] for row in self._db.write_fetch("jobs_lost", {"of_run": run_id})]
        waits = Counter(row[0] for row in self._db.write_fetch("edge_restore", {"ids": listed(lost)}))
        self._db.write_each("job_restore", [{"job_id": id, "n": n} for id, n in sorted(waits.items())])
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


def _put(results: Sequence[Mapping[str, Any]]) -> list[Step]:
    return [("result_insert", results)] if results else []


def _result(end: Completion, key: str, body: bytes) -> dict[str, Any]:
    return {
        "key": key,
        "run_id": end.run_id,
        "body": body,
        "bytes": len(body),
        "scope_run": end.scope_run,
        "job_id": end.job_id,
        "fence": end.fence,
    }
