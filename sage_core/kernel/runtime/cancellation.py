"""Cancels one job of a run that goes on.

Its rows count as failed. Where its steps skip what fails, the rows are skipped: what waited for the job runs without
them, the run ends as partial, and a redrive computes them. Else the job fails, and its run with it.
"""

from __future__ import annotations

import asyncio
from typing import Any

from sage_core.common.contracts import InferenceClient
from sage_core.common.errors import CorruptArtifact, OperatorError
from sage_core.common.host import Host
from sage_core.common.records import JobState, Record
from sage_core.common.telemetry import log
from sage_core.kernel.runtime import finish
from sage_core.kernel.runtime.autoscale import ensure_workers
from sage_core.kernel.runtime.calls import Outcome
from sage_core.kernel.runtime.job_manager import JobManager
from sage_core.kernel.runtime.job_runner import JobRun, RunScope
from sage_core.kernel.runtime.launch import Project
from sage_core.kernel.runtime.prepared import decode_prepared
from sage_core.kernel.runtime.redrive import is_driven
from sage_core.kernel.runtime.results import Result
from sage_core.kernel.runtime.submit import manager_of
from sage_core.kernel.runtime.values import Codec
from sage_core.platform.attempts import cancelled
from sage_core.platform.records import JobRow
from sage_core.platform.shared import artifacts_of
from sage_core.platform.transaction import Transaction


class Cancelled(Record):
    """What became of a job that was cancelled, and of its run."""

    job: int
    run_id: str
    #: ``done`` where what failed of it is skipped.
    state: JobState
    #: Rows that count as failed and are skipped.
    failures: int
    error: str


class JobCancelled(Exception):
    """Why a row of a cancelled job failed."""

    def __str__(self) -> str:
        return "its job was cancelled"


def cancel_job(job_id: int, *, host: Host, project: Project) -> Cancelled:
    """Cancel a job that is ready or runs, see to what follows from that, and end its run if that was all of it."""
    with project.open_store() as store:
        run = store.run(store.job(job_id).run_id)
        prepared = decode_prepared(run.plan)
        manager, inputs = manager_of(
            run, prepared, store, host=host, paths=project.paths, config=project.config, session=run.session
        )
        scope = RunScope(
            run.id,
            inputs,
            host=host,
            store=store,
            artifacts=artifacts_of(project.paths.artifacts, store),
            codec=Codec(project.paths.artifacts),
            clients=_no_client,
            warn=lambda message: log("step_warned", run=run.id, message=message),
        )
        with store.transaction() as tx:
            _end(tx, job_id, manager, scope)
        ended = finish.finish(store, inputs, run, host)
        job = store.job(job_id)
    if not ended and not is_driven(run):
        ensure_workers(project, run.queue)
    return Cancelled(job=job.id, run_id=run.id, state=job.state, failures=job.failures, error=job.error)


def _end(tx: Transaction, job_id: int, manager: JobManager, scope: RunScope) -> None:
    job = tx.seize(job_id)
    kept = tx.results([job.result_key]) if job.result_key and job.failures else {}
    if job.result_key in kept:
        # It was to mend a partial result, which stays as it is.
        manager.reuse(tx, job, job.result_key, kept[job.result_key])
        return
    try:
        key, result = manager.key(tx, job), asyncio.run(_refused(scope, job))
    except CorruptArtifact as error:
        tx.settle([cancelled(job, f"cancelled; {error}")], history=False)
        return
    except OperatorError as error:
        tx.settle([cancelled(job, f"cancelled; step {error.args[0]!r} skips no rows")], history=False)
        return
    manager.complete(tx, job, key, result, fence=job.fence)


async def _refused(scope: RunScope, job: JobRow) -> Result:
    """The result of an attempt in which every call fails: neither operators nor their models need be here."""
    first = scope.prepared.graph.steps[job.stage]
    if first.join:
        raise OperatorError(first.name, "cancelled")
    attempt: Any = JobRun(scope, job)
    attempt.bound, attempt.memo = (lambda step, cell: _Refused()), (lambda step, cell: None)
    result: Result = await attempt.run()
    return result


class _Refused:
    """Stands where an operator would."""

    def call(self) -> _Refused:
        return self

    def sharing(self, values: set[int]) -> _Refused:
        return self

    async def rows(self, columns: Any, n: int) -> Outcome:
        return Outcome([None] * n, {row: JobCancelled() for row in range(n)})

    async def batches(self, columns: Any, n: int, size: int) -> Outcome:
        return await self.rows(columns, n)

    async def one(self, values: Any) -> Any:
        raise JobCancelled

    def fold(self) -> Any:
        raise JobCancelled


def _no_client(step: str) -> InferenceClient:
    raise AssertionError(f"step {step} is not run")
