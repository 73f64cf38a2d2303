"""What a run would do, without doing it: submitted in a transaction that is rolled back.

The decisions are made by the very code that makes them in a run, so the preview cannot disagree with it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

from sage_core.common.records import Job, Record
from sage_core.kernel.dataflow.plan import PARAMS, Stage
from sage_core.kernel.runtime.executor import Executor
from sage_core.kernel.runtime.job_runner import JobRun
from sage_core.kernel.runtime.results import Result
from sage_core.platform.records import JobRow, NewRun
from sage_core.platform.store import JobStore

Verb = Literal["reuse", "run", "always", "deferred"]


class Decision(Record):
    """What would become of one step, and why."""

    verb: Verb
    reason: str
    #: Jobs known so far, and those of them that would be reused.
    jobs: int = 0
    reused: int = 0
    #: Source rows in the jobs that would run.
    rows: int = 0


class _Undo(Exception):
    pass


async def preview(executor: Executor, store: JobStore, run: NewRun, *, probe: bool) -> dict[str, Decision]:
    """Decide for every step; writes nothing.

    Args:
        probe: run the sources (they only read), so that partitions are known; otherwise what lies behind a
            source is deferred.
    """
    prepared = executor.inputs.prepared
    sources = [
        s for s in prepared.stages.values() if probe and is_source(prepared.graph.steps[s.name].signature.shape, s)
    ]
    found: dict[str, Result] = {}
    for stage in sources:
        job = Job(id=0, run_id=run.id, stage=stage.name, part=0, state="running", fence=0, attempt=1, max_attempts=1)
        found[stage.name] = await JobRun(executor.scope, job).run()
    jobs: list[JobRow] = []
    try:
        with store.transaction() as tx:
            executor.manager.submit(tx, run)
            for job in tx.jobs(run.id):
                if job.stage in found and job.state == "ready":
                    key = executor.manager.key(tx, job)
                    executor.manager.complete(tx, job, key, found[job.stage], fence=None)
            jobs = tx.jobs(run.id)
            raise _Undo
    except _Undo:
        pass
    return decisions(prepared.stages, jobs, sources=frozenset(found))


def is_source(shape: str, stage: Stage) -> bool:
    """Whether a stage reads nothing but parameters, opens rows, and runs every time."""
    return stage.single and not stage.pure and shape == "expand" and set(stage.reads) <= {PARAMS}


def decisions(
    stages: Mapping[str, Stage], jobs: Sequence[JobRow], *, sources: frozenset[str] = frozenset()
) -> dict[str, Decision]:
    """Decide from the states of a run's jobs before any was claimed."""
    by_stage: dict[str, list[JobRow]] = {name: [] for name in stages}
    for job in jobs:
        by_stage[job.stage].append(job)
    found = {}
    for name, stage in stages.items():
        own = by_stage[name]
        reused = sum(job.reused for job in own)
        open_rows = sum(job.stop - job.start for job in own if job.state != "done")
        waiting = [other for other in (*stage.reads, *stage.after) if other != PARAMS and _unknown(by_stage[other])]
        verb: Verb
        if name in sources or (not stage.pure and not waiting):
            verb, reason = "always", "its operator reads the world, so its results do not outlive a run"
        elif own and reused == len(own):
            verb, reason = "reuse", "code, options and inputs are those of an earlier result"
        elif waiting:
            verb, reason = "deferred", f"known once {' and '.join(waiting)} ran"
        elif not own:
            verb, reason = "deferred", "its rows are not known yet" if stage.root else "its inputs are not known yet"
        else:
            verb, reason = "run", "no earlier result has its code, options and inputs"
        if verb == "run" and reused:
            reason = f"reuse {reused} of {len(own)} partitions"
        decision = Decision(verb=verb, reason=reason, jobs=len(own), reused=reused, rows=open_rows)
        found.update(dict.fromkeys(stage.steps, decision))
    return found


def _unknown(jobs: Sequence[JobRow]) -> bool:
    return not jobs or any(job.state != "done" for job in jobs)
