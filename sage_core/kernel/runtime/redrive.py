"""Gives what failed another chance: failed jobs all their attempts, and of partial results the rows that failed."""

from __future__ import annotations

from sage_core.common.errors import UsageError
from sage_core.common.host import Host
from sage_core.common.records import Record
from sage_core.kernel.runtime.autoscale import ensure_workers
from sage_core.kernel.runtime.finish import announce
from sage_core.kernel.runtime.launch import Project
from sage_core.kernel.runtime.prepared import decode_prepared
from sage_core.kernel.runtime.reopen import affected, reopen
from sage_core.kernel.runtime.submit import PRIVATE, manager_of
from sage_core.platform.records import ENDED, StoredRun
from sage_core.platform.store import JobStore


class Failures(Record):
    """What a redrive of a run would try again."""

    #: Jobs that failed as a whole.
    jobs: int = 0
    #: Rows that failed in results that were kept.
    rows: int = 0


def failures_in(store: JobStore, run: StoredRun) -> Failures:
    """Count what failed in a run; a run that has not ended or in which nothing failed is refused."""
    if run.status not in ENDED:
        raise UsageError(f"Run {run.id} is {run.status}.", f"wait for it, or stop it: sage runs cancel {run.id}")
    jobs = store.jobs(run.id)
    found = Failures(
        jobs=sum(job.state == "failed" for job in jobs),
        rows=sum(job.failures for job in jobs if job.state == "done"),
    )
    affected(store, run.id, decode_prepared(run.plan))
    if not found.jobs and not found.rows:
        way = f"sage runs resume {run.id}" if run.status == "cancelled" else "sage runs list --status failed"
        raise UsageError(f"Nothing failed in run {run.id} ({run.status}).", f"see: {way}")
    return found


def is_driven(run: StoredRun) -> bool:
    """Whether a run needs a process that drives it; others belong to the workers of their queue."""
    return run.queue.startswith(PRIVATE)


def requeue(run_id: str, *, host: Host, project: Project, redrive: bool = True) -> bool:
    """Queue an ended run once more for the workers of its queue; returns whether a supervisor was started for it.

    Args:
        redrive: rows that failed and were skipped are tried again too.
    """
    with project.open_store() as store:
        run = store.run(run_id)
        announce(store, host, run.id)
        session = store.resume_run(run.id)
        prepared = decode_prepared(run.plan)
        manager, _ = manager_of(
            run, prepared, store, host=host, paths=project.paths, config=project.config, session=session
        )
        with store.transaction() as tx:
            # Whoever finished the run meanwhile found nothing left to do, which is what is mended here.
            if tx.run(run.id).status in ENDED:
                raise UsageError(f"Run {run.id} has just ended once more.", "try again")
            if redrive:
                reopen(tx, run.id, prepared)
            manager.settle(tx)
    return ensure_workers(project, run.queue)
