"""The job store: runs, jobs and results in one SQL database, under one fenced protocol.

Execution is at least once, a recorded effect exactly once: every write of a worker carries the fence of its claim, and
a fence that is no longer the job's is refused with `StaleAttempt`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from operator import itemgetter
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import msgspec

from sage_core.common.errors import StoreError, UsageError
from sage_core.common.records import Job, JobState, RunStatus
from sage_core.platform.attempts import expired, held_from, refunded, retried
from sage_core.platform.database import Database, Dialect, Row, dialect_of, mask
from sage_core.platform.processes import is_alive
from sage_core.platform.reader import Reader, claimed_job, listed
from sage_core.platform.records import Completion, FileDigest, NewWorker, WorkerRow
from sage_core.platform.schema import prepare
from sage_core.platform.transaction import Transaction, completed

#: Expired leases one claim takes back at most, so that no claim pays for everybody's dead.
HOUSEKEEPING = 64
#: A worker on another machine that has been silent this long, in ms, is taken for dead.
SILENCE_MS = 90_000

#: Rank, run_at and id of a claimed row.
BY_RANK = itemgetter(10, 11, 0)

Pair = tuple[int, int]
#: Of these waiting needs, which fit beside those that run (needs → how many).
Fits = Callable[[Sequence[str], Mapping[str, int]], Sequence[str]]


class JobStore(Reader):
    """A handle on the store, for one thread; processes open one each."""

    @classmethod
    def statements(cls, dialect: Dialect) -> Mapping[str, str]:
        """The text of every statement, by name."""
        text = Path(__file__).with_name(f"statements_{dialect}.json").read_bytes()
        return msgspec.json.decode(text, type=dict[str, str])

    @classmethod
    def open(cls, url: str, *, synchronous: str = "NORMAL") -> Self:
        """Open ``sqlite:///PATH`` or ``postgresql://…``; a SQLite file and the schema are made or upgraded as needed.

        Args:
            synchronous: how SQLite flushes; PostgreSQL has its own setting of that name.
        """
        database = _connect(url, synchronous, cls.statements(dialect_of(url)))
        try:
            prepare(database, url)
        except BaseException:
            database.close()
            raise
        database.changed()
        return cls(database)

    def close(self) -> None:
        """Close the handle; what was not committed is gone."""
        self._db.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @contextmanager
    def transaction(self) -> Iterator[Transaction]:
        """Open a write transaction: committed at the end, rolled back by an exception, never nested."""
        self._db.begin()
        try:
            yield Transaction(self._db)
        except BaseException:
            self._db.rollback()
            raise
        self._db.commit()

    # ------------------------------------------------------------ waiting

    def changed(self) -> bool:
        """Tell whether another handle has committed anything since the last call."""
        return self._db.changed()

    def fileno(self) -> int | None:
        """What becomes readable when `changed` would be true, after it was false; None where only asking tells."""
        return self._db.fileno()

    def next_due(self, *, run_id: str | None = None, queue: str = "default") -> int | None:
        """Milliseconds until a job becomes claimable or a lease runs out; 0 is now, None is never by itself."""
        where = {"queue": queue, "run_id": run_id}
        if self._db.fetch("due_ready", where):
            return 0
        moments = [self._db.fetch("due_later", where)[0][0], self._db.fetch("due_lease", {})[0][0]]
        known = [moment for moment in moments if moment is not None]
        return max(0, min(known)) if known else None

    # ------------------------------------------------------------ the protocol

    def claim(
        self,
        worker: str,
        *,
        lease_ms: int,
        run_id: str | None = None,
        queue: str = "default",
        limit: int = 1,
        node: str = "",
        fits: Fits | None = None,
    ) -> list[Job]:
        """Take up to `limit` ready jobs for `lease_ms`, best rank first, after taking back what others lost.

        Args:
            node: where the worker runs; jobs meant for another node are left to it while its patience lasts.
            fits: which needs the node can meet besides what runs on it, asked only while jobs with needs wait;
                without it such jobs are left to others.
        """
        name = "claim" if run_id is None else "claim_run"
        values = {"queue": queue, "limit": limit, "by_worker": worker, "lease_ms": lease_ms, "on_node": node}
        values |= {"of_run": run_id, "fits": "[]", "anyway": False}
        rows = self._db.alone(name, values)
        if not rows:
            # Nothing is ready, or there is something to see to first.
            with self.transaction() as tx:
                self._expire(tx)
                values["anyway"] = True
                if fits is not None:
                    values |= self._fitting(node, fits, limit)
                rows = self._with_slots(self._db.write_fetch(name, values))
        if len(rows) > 1:
            # RETURNING promises no order.
            rows.sort(key=BY_RANK)
        return [claimed_job(row) for row in rows]

    def _fitting(self, node: str, fits: Fits, limit: int) -> dict[str, Any]:
        """The needs this node can meet now; one such job is claimed at a time, because each takes from what is left."""
        waiting = [row[0] for row in self._db.fetch("needs_waiting", {})]
        if not waiting:
            return {}
        # Two workers of one node take turns here, so that they cannot reserve the same resources.
        self._db.write_fetch("node_lock", {"name": node})
        running = {row[0]: row[1] for row in self._db.fetch("needs_running", {"name": node})}
        able = fits(waiting, running)
        return {"fits": listed(able), "limit": 1 if able else limit}

    def _with_slots(self, rows: Sequence[Row]) -> list[Row]:
        # In one order, so that two claims cannot lock each other out; then the best rank is the first to get a slot.
        for key in sorted({row[-1] for row in rows} - {None}):
            self._db.write_fetch("slot_lock", {"key": key})
        return [row for row in sorted(rows, key=BY_RANK) if row[-1] is None or self._has_slot(row)]

    def _has_slot(self, row: Row) -> bool:
        """Take a slot for a claimed job whose key is limited; without a free one the claim is undone."""
        mine = {"job_id": row[0], "fence": row[5]}
        if self._db.write("slot_take", {"key": row[-1], **mine}) == 1:
            return True
        self._db.write("unclaim", mine)
        return False

    def complete(self, ends: Sequence[Completion]) -> set[int]:
        """Record the results of attempts whose jobs nothing waits for, which takes one round trip.

        Returns the jobs of attempts that do not own them any more; of these nothing is recorded.
        """
        done = self._db.whole(completed(ends, self._db.dialect))[0] if ends else ()
        return {end.job_id for end in ends} - {row[0] for row in done}

    def renew_workers(self, workers: Sequence[str], lease_ms: int) -> dict[int, int]:
        """Say that these workers live, and prolong the leases of all they hold; returns job → fence of that."""
        with self.transaction():
            self._db.write("workers_beat", {"workers": listed(workers)})
            rows = self._db.write_fetch("renew_workers", {"workers": listed(workers), "lease_ms": lease_ms})
        return {row[0]: row[1] for row in rows}

    def snooze(self, job_id: int, fence: int, delay_ms: int) -> None:
        """Return a running job unharmed for a while: the attempt does not count, and leaves no history."""
        with self.transaction() as tx:
            ending = refunded(tx.held(job_id, fence))
            tx.settle([msgspec.structs.replace(ending, delay_ms=delay_ms)], history=False)

    def renew(self, pairs: Sequence[Pair], lease_ms: int) -> set[int]:
        """Prolong the leases of (job, fence) pairs; return the jobs that are still ours and within their deadline."""
        if not pairs:
            return set()
        with self.transaction():
            rows = self._db.write_fetch("renew", {**_pairs(pairs), "lease_ms": lease_ms})
        return {row[0] for row in rows}

    def give_back(self, pairs: Sequence[Pair], *, refund: bool = True) -> int:
        """Return running jobs unharmed; the attempt is refunded, the fence never. Lost ones are passed over."""
        with self.transaction() as tx:
            held = [held_from(row) for row in self._db.write_fetch("held_pairs", _pairs(pairs))]
            return tx.settle([refunded(h) if refund else retried(h, "given_back", "given back") for h in held])

    def give_back_all(self, worker_id: str) -> int:
        """Return every job that a worker holds unharmed, known to it or not."""
        with self.transaction() as tx:
            held = [held_from(row) for row in self._db.write_fetch("held_worker", {"of_worker": worker_id})]
            return tx.settle([refunded(h) for h in held])

    def fail(self, job_id: int, fence: int, error: str, *, retry_in_ms: int | None) -> JobState:
        """End an attempt with an error; return ``ready`` when another follows, else ``failed``."""
        with self.transaction() as tx:
            ending = retried(tx.held(job_id, fence), "retried", error, delay_ms=retry_in_ms)
            tx.settle([ending])
        return ending.state

    def release_worker(self, worker_id: str, reason: str, *, refund: bool = False) -> int:
        """Take every running job from a worker that is gone; they are claimable at once, or failed as lost."""
        with self.transaction() as tx:
            return self._release_worker(tx, worker_id, reason, refund=refund)

    def _release_worker(self, tx: Transaction, worker_id: str, reason: str, *, refund: bool = False) -> int:
        held = [held_from(row) for row in self._db.write_fetch("held_worker", {"of_worker": worker_id})]
        error = f"worker lost: {reason}"
        count = tx.settle([refunded(h, "lost", error) if refund else retried(h, "lost", error) for h in held])
        self._db.write("worker_stop", {"of_worker": worker_id})
        return count

    # ------------------------------------------------------------ runs

    def finish_run(
        self,
        run_id: str,
        status: RunStatus,
        outputs: bytes | None = None,
        error: str = "",
        *,
        session: int | None = None,
    ) -> bool:
        """End a run in a transaction of its own; see `Transaction.finish_run`."""
        with self.transaction() as tx:
            return tx.finish_run(run_id, status, outputs, error, session=session)

    def cancel_run(self, run_id: str) -> bool:
        """Stop a run and every job of it that is not finished; False when it has ended already."""
        with self.transaction() as tx:
            return tx.finish_run(run_id, "cancelled", error="cancelled")

    def resume_run(self, run_id: str, *, supervisor: str = "") -> int:
        """Start another session of a run and return its number; what is done stays done.

        Failed and cancelled jobs get all their attempts again, jobs of dead workers are freed, and jobs whose result
        was forgotten run again. A run whose supervisor lives is refused.
        """
        with self.transaction() as tx:
            run = tx.run(run_id)
            living = {worker.id: worker for worker in self._bury_dead(tx)}
            driver = living.get(run.supervisor)
            if run.status == "running" and driver is not None and run.supervisor != supervisor:
                raise UsageError(
                    f"Run {run.id} is being driven by process {driver.pid} on {driver.host}.",
                    f"wait for it, or stop it: sage runs cancel {run.id}",
                )
            held = [held_from(row) for row in self._db.write_fetch("held_run", {"of_run": run.id})]
            tx.settle([refunded(h, "lost", "worker lost") for h in held if h.worker not in living])
            tx.reopen_lost(run.id)
            session: int = self._db.write_fetch("run_resume", {"run_id": run.id, "worker": supervisor})[0][0]
        return session

    def _bury_dead(self, tx: Transaction) -> list[WorkerRow]:
        now, living = tx.now(), []
        for worker in tx.live_workers():
            alive = is_alive(worker)
            if alive is None:
                alive = now - worker.heartbeat_at < SILENCE_MS
            if alive:
                living.append(worker)
            else:
                self._release_worker(tx, worker.id, f"process {worker.pid} on {worker.host} is gone")
        return living

    # ------------------------------------------------------------ values and workers

    def memo_put(self, items: Mapping[str, bytes], *, job_id: int, fence: int) -> None:
        """Remember values computed by an attempt that still owns its job."""
        with self.transaction() as tx:
            tx.memo_put(items, job_id=job_id, fence=fence)

    def file_digest_put(self, rows: Iterable[FileDigest]) -> None:
        """Keep the digests of files as they are now."""
        with self.transaction() as tx:
            tx.file_digest_put(rows)

    def register_worker(self, worker: NewWorker) -> None:
        """Announce a process; see `processes.this_process`."""
        with self.transaction():
            self._db.write("worker_insert", msgspec.structs.asdict(worker))

    def beat(self, worker_id: str) -> bool:
        """Say that a process lives; False when others have taken it for dead."""
        with self.transaction():
            return self._db.write("worker_beat", {"of_worker": worker_id}) == 1

    def tell_phases(self, worker_id: str, phases: Mapping[str, int]) -> None:
        """Keep how long a worker's cold start took, in ms by phase."""
        with self.transaction():
            self._db.write("worker_phases", {"of_worker": worker_id, "phases": msgspec.json.encode(phases).decode()})

    def stop_worker(self, worker_id: str) -> None:
        """Say goodbye; jobs the worker still holds are given back with their attempts."""
        self.release_worker(worker_id, "stopped", refund=True)

    def expire(self) -> int:
        """Take back jobs whose lease ran out, as every claim does, where nobody claims; a bounded number."""
        with self.transaction() as tx:
            return self._expire(tx)

    def _expire(self, tx: Transaction) -> int:
        late = self._db.write_fetch("held_expired", {"limit": HOUSEKEEPING})
        now = self.now() if late else 0
        return tx.settle([expired(held_from(row), now) for row in late])

    def bury_dead_workers(self) -> list[WorkerRow]:
        """Free the jobs of processes that died without goodbye, and return those that live."""
        with self.transaction() as tx:
            return self._bury_dead(tx)


def _connect(url: str, synchronous: str, statements: Mapping[str, str]) -> Database:
    if dialect_of(url) == "sqlite":
        # sqlite3 and psycopg are imported for the database that is used.
        from sage_core.platform.sqlite import connect  # noqa: PLC0415

        return connect(url, synchronous=synchronous, statements=statements)
    try:
        from sage_core.platform.postgres import PostgresDatabase  # noqa: PLC0415
    except ImportError as error:
        raise StoreError(
            mask(url), f"the PostgreSQL driver is missing ({error})", "pip install sage-core[postgres]"
        ) from error
    return PostgresDatabase(url, statements)


def _pairs(pairs: Sequence[Pair]) -> dict[str, str]:
    return {"ids": listed(job for job, _ in pairs), "pairs": listed(pairs)}
