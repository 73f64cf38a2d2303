"""Opens the jobs of a run again whose result is partial, and all that follows from them."""

from __future__ import annotations

from sage_core.common.errors import UsageError
from sage_core.common.records import Record
from sage_core.kernel.runtime.prepared import Prepared
from sage_core.platform.reader import Reader
from sage_core.platform.records import JobRow
from sage_core.platform.transaction import Transaction


class Affected(Record):
    """Done jobs that have to be looked at again."""

    #: Those in which rows failed.
    partial: tuple[int, ...] = ()
    #: Those and all that follow from them.
    jobs: tuple[int, ...] = ()


def affected(reader: Reader, run_id: str, prepared: Prepared) -> Affected:
    """Find what a redrive of a run's failed rows touches; refused where the partitions of the run would change."""
    jobs = {job.id: job for job in reader.jobs(run_id)}
    partial = tuple(job.id for job in jobs.values() if job.state == "done" and job.failures)
    after: dict[int, list[int]] = {}
    for before, next_ in reader.edges(run_id) if partial else ():
        after.setdefault(before, []).append(next_)
    reached, front = set(partial), list(partial)
    while front:
        fresh = set(after.get(front.pop(), ())) - reached
        reached |= fresh
        front += fresh
    _refuse_openers([jobs[id] for id in sorted(reached)], prepared)
    return Affected(partial=partial, jobs=tuple(id for id in sorted(reached) if jobs[id].state == "done"))


def reopen(tx: Transaction, run_id: str, prepared: Prepared) -> int:
    """Make jobs whose result is partial ready again, and block all that follows from them; returns how many."""
    found = affected(tx, run_id, prepared)
    tx.reopen(found.jobs)
    return len(found.partial)


def _refuse_openers(jobs: list[JobRow], prepared: Prepared) -> None:
    roots = {stage.root for stage in prepared.stages.values() if not stage.single}
    for job in jobs:
        if prepared.stages[job.stage].single and prepared.graph.steps[job.stage].out in roots:
            raise UsageError(
                f"Step {job.stage!r} opens rows out of what failed, so partitions of run {job.run_id} would change.",
                f"start the workflow {prepared.graph.name!r} again: what is finished is reused",
            )
