"""How an attempt ends: a pure decision from the held job and what happened to it."""

from __future__ import annotations

from typing import Any

from sage_core.common.records import JobState, Record
from sage_core.platform.database import Row
from sage_core.platform.records import JobRow, Outcome


class Held(Record):
    """A running job, as much of it as the end of its attempt depends on."""

    id: int
    fence: int
    attempt: int
    max_attempts: int
    worker: str
    claimed_at: int
    deadline_at: int | None


class Ending(Record):
    """What becomes of a job whose attempt ended without a result."""

    held: Held
    state: JobState
    outcome: Outcome
    error: str
    #: What `attempt` counts from here on; the fence is never touched.
    attempt: int
    delay_ms: int = 0


def held_from(row: Row) -> Held:
    """Read the columns `queries.HELD` names."""
    return Held(
        id=row[0],
        fence=row[1],
        attempt=row[2],
        max_attempts=row[3],
        worker=row[4] or "",
        claimed_at=row[5] or 0,
        deadline_at=row[6],
    )


def held_of(job: JobRow) -> Held:
    """The same of a job that is at hand whole."""
    held = {name: getattr(job, name) for name in Held.__struct_fields__}
    return Held(**{**held, "worker": job.worker or "", "claimed_at": job.claimed_at or 0})


def cancelled(job: JobRow, error: str) -> Ending:
    """A job that was seized is not to be tried again."""
    return Ending(held=held_of(job), state="failed", outcome="cancelled", error=error, attempt=job.attempt)


def expired(held: Held, now: int) -> Ending:
    """A lease ran out: because the deadline cut it, or because nobody renewed it."""
    if held.deadline_at is not None and held.deadline_at <= now:
        limit = f"{(held.deadline_at - held.claimed_at) / 1000:g} s"
        return retried(held, "timeout", f"timed out after {limit}, the [workers] deadline of an attempt")
    return retried(held, "expired", f"worker lost: {held.worker} stopped renewing its lease")


def retried(held: Held, outcome: Outcome, error: str, *, delay_ms: int | None = 0) -> Ending:
    """The attempt is spent: another follows after `delay_ms`, unless that is None or none is left."""
    left = held.attempt < held.max_attempts
    if delay_ms is None or not left:
        spent = f" (attempt {held.attempt} of {held.max_attempts})" if delay_ms is not None else ""
        ended: Outcome = "failed" if outcome == "retried" else outcome
        return Ending(held=held, state="failed", outcome=ended, error=error + spent, attempt=held.attempt)
    return Ending(held=held, state="ready", outcome=outcome, error=error, attempt=held.attempt, delay_ms=delay_ms)


def refunded(held: Held, outcome: Outcome = "given_back", error: str = "") -> Ending:
    """The worker gave the job back unharmed: the attempt does not count."""
    return Ending(held=held, state="ready", outcome=outcome, error=error, attempt=max(held.attempt - 1, 0))


def settle_row(ending: Ending) -> dict[str, Any]:
    """Parameters of the statement that ends the attempt."""
    return {
        "job_id": ending.held.id,
        "fence": ending.held.fence,
        "new_state": ending.state,
        "new_attempt": ending.attempt,
        "new_error": ending.error,
        "delay_ms": ending.delay_ms,
    }


def history_row(held: Held, outcome: Outcome, error: str = "") -> dict[str, Any]:
    """Parameters of the attempt's line in the history."""
    return {
        "job_id": held.id,
        "fence": held.fence,
        "attempt": held.attempt,
        "worker": held.worker,
        "started_at": held.claimed_at,
        "outcome": outcome,
        "error": error,
    }
