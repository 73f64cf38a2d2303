"""How a run ends: what it came to, its row in the store, and the plugins that hear of it; whoever drives it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from sage_core.common.errors import StoreUnavailable
from sage_core.common.host import Host
from sage_core.common.records import Record, RowFailure, Run, RunStatus
from sage_core.common.telemetry import log
from sage_core.kernel.runtime.inputs import Inputs
from sage_core.kernel.runtime.inspect import iso
from sage_core.kernel.runtime.report import (
    StepReport,
    failures_of,
    outputs_of,
    results_of,
    session_tokens,
    step_reports,
    too_many,
)
from sage_core.platform.records import ENDED, StoredRun
from sage_core.platform.store import JobStore

#: Milliseconds after which whoever ended a run is taken to have died before the plugins heard of it.
UNHEARD_MS = 60_000


class Conclusion(Record):
    """What a run came to, read from its jobs."""

    status: RunStatus
    outputs: dict[str, Any]
    error: str
    steps: dict[str, StepReport]
    failures: tuple[RowFailure, ...]
    #: Tokens of the answers its session had generated.
    tokens: Mapping[str, int]


def conclude(store: JobStore, inputs: Inputs, run: StoredRun) -> Conclusion:
    """Read the jobs of a run in which nothing is left to do."""
    jobs = store.jobs(run.id)
    results = results_of(store, jobs)
    steps = step_reports(inputs, jobs, results, run.session)
    failures = failures_of(inputs, jobs, results)
    broken = [job for job in jobs if job.state == "failed"]
    error = "; ".join(dict.fromkeys(job.error for job in broken)) or too_many(inputs, steps)
    if not error and any(job.state != "done" for job in jobs):
        # The run was cancelled from elsewhere, and ending it finds that out; anything else is a defect.
        error = "jobs were left that nothing will make ready"
    return Conclusion(
        status="failed" if error else "partial" if failures else "succeeded",
        outputs={} if error else outputs_of(inputs, store),
        error=error,
        steps=steps,
        failures=failures,
        tokens=session_tokens(jobs, results, run.session),
    )


def end(
    store: JobStore, run: StoredRun, status: RunStatus, outputs: Mapping[str, Any] | None = None, error: str = ""
) -> bool:
    """End a session of a run; False when it is over already, or another session goes on."""
    body = None if outputs is None else msgspec.msgpack.encode(outputs)
    return store.finish_run(run.id, status, body, error, session=run.session)


def announce(store: JobStore, host: Host, run_id: str) -> StoredRun:
    """Tell the plugins that a run has ended, once; whoever dies before that is noted has them told again."""
    run = store.run(run_id)
    if run.status in ENDED and run.announced < run.session:
        told = Run(
            id=run.id,
            workflow=run.workflow,
            status=run.status,
            created_at=iso(run.created_at),
            finished_at=iso(run.finished_at or run.created_at),
            session=run.session,
            error=run.error,
        )
        host.hook.sage_on_run_finished(run=told)
        with store.transaction() as tx:
            tx.announced(run.id, run.session)
    return run


def announce_left(store: JobStore, host: Host, *, for_ms: int = UNHEARD_MS) -> None:
    """Announce runs whose ends somebody else was to announce, and has not for so long."""
    for run_id in store.runs_unheard(for_ms=for_ms):
        announce(store, host, run_id)


def finish(store: JobStore, inputs: Inputs, run: StoredRun, host: Host) -> bool:
    """End a run without a driver if nothing is left to do; of several that try, one does and tells the plugins."""
    pulse = store.pulse(run.id)
    if pulse is None or pulse.status in ENDED or pulse.supervisor or pulse.session != run.session or not pulse.over:
        return False
    try:
        found = conclude(store, inputs, run)
    except StoreUnavailable:
        raise
    except Exception as error:  # noqa: BLE001 - a run that cannot be summed up would be tried for ever
        return give_up(store, run, host, str(error) or type(error).__name__)
    return _end_and_tell(store, run, host, found.status, found.outputs, found.error)


def give_up(store: JobStore, run: StoredRun, host: Host, error: str) -> bool:
    """End a run without a driver as failed, for a reason that is in none of its jobs."""
    return _end_and_tell(store, run, host, "failed", None, error)


def _end_and_tell(
    store: JobStore, run: StoredRun, host: Host, status: RunStatus, outputs: Mapping[str, Any] | None, error: str
) -> bool:
    if not end(store, run, status, outputs, error):
        return False
    log("run_finished", run=run.id, status=status)
    announce(store, host, run.id)
    return True
