"""A run as it stands in the store, whoever drives it and wherever it is: for `sage runs show`."""

from __future__ import annotations

import time

import msgspec

from sage_core.common.paths import Paths
from sage_core.common.records import JobState, Record, RowFailure, RunStatus
from sage_core.kernel.runtime.inputs import Inputs
from sage_core.kernel.runtime.prepared import decode_prepared
from sage_core.kernel.runtime.report import StepReport, failures_of, results_of, step_reports
from sage_core.kernel.runtime.results import Tables
from sage_core.kernel.runtime.values import Codec
from sage_core.platform.records import StoredRun
from sage_core.platform.shared import artifacts_of
from sage_core.platform.store import JobStore


class RunView(Record):
    """Everything the store says of a run."""

    run_id: str
    workflow: str
    status: RunStatus
    created_at: str
    #: Times the run was started or resumed.
    session: int
    jobs: dict[JobState, int]
    steps: dict[str, StepReport]
    outputs: dict[str, object] = {}
    failures: tuple[RowFailure, ...] = ()
    error: str = ""


def inspect_run(store: JobStore, run: StoredRun, paths: Paths) -> RunView:
    """Read a run's jobs and results and sum them up."""
    codec = Codec(paths.artifacts)
    inputs = Inputs(run.id, decode_prepared(run.plan), Tables(codec, artifacts_of(paths.artifacts, store)), codec)
    jobs = store.jobs(run.id)
    results = results_of(store, jobs)
    return RunView(
        run_id=run.id,
        workflow=run.workflow,
        status=run.status,
        created_at=iso(run.created_at),
        session=run.session,
        jobs=store.counts(run.id),
        steps=step_reports(inputs, jobs, results, run.session),
        outputs=msgspec.msgpack.decode(run.outputs) if run.outputs else {},
        failures=failures_of(inputs, jobs, results),
        error=run.error or "; ".join(dict.fromkeys(job.error for job in jobs if job.state == "failed")),
    )


def iso(ms: int) -> str:
    """ISO 8601, UTC, of milliseconds since the epoch."""
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(ms / 1000)) + f".{ms % 1000:03d}Z"
