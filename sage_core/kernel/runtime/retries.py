"""Why something failed, and what follows: which causes are tried again, after how long, how often.

A row's call and a job go by one table. A step that says `retry` decides for its own calls, and what then still fails
fails the job; where it says nothing, a cause that may go away by itself has the whole job tried again.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Mapping
from typing import Literal

from sage_core.common.errors import EngineHostError, OperatorError, RequestRejected, StoreUnavailable
from sage_core.kernel.dataflow.graph import Retry, Step

Cause = Literal["rate_limit", "timeout", "connection", "worker_lost", "error"]

#: Causes by the class of the error, the first that fits; anything else is "error": the same again would be wrong again.
CAUSES: tuple[tuple[type[Exception], Cause], ...] = (
    (RequestRejected, "rate_limit"),
    (TimeoutError, "timeout"),
    (ConnectionError, "connection"),
    (EngineHostError, "connection"),
    (StoreUnavailable, "connection"),
)
#: What may go away by itself, and waits between the attempts at a job.
PASSING = Retry(max=2, base=1.0, cap=60.0, on=("rate_limit", "timeout", "connection", "worker_lost"))
#: Attempts at a job whose steps do not say how often a lost worker's job is tried again.
ATTEMPTS = 1 + PASSING.max


class RowFailed(Exception):
    """A failure that a batch operator reported for one row with `RowError`."""

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(kind, message)
        self.kind = kind

    def __str__(self) -> str:
        message: str = self.args[1]
        return message


def cause(error: BaseException) -> Cause:
    """Why a call or a job failed; ``retry.on`` lists these."""
    if isinstance(error, OperatorError) and error.__cause__ is not None:
        return cause(error.__cause__)
    if isinstance(error, RowFailed):
        return next((known for _, known in CAUSES if known == error.kind), "error")
    return next((known for kind, known in CAUSES if isinstance(error, kind)), "error")


def named(error: BaseException, retry: Retry) -> bool:
    """Whether a step wants a call that failed so tried again; "error" is anything an operator raises."""
    return cause(error) in retry.on or "error" in retry.on


def backoff(error: BaseException, attempt: int, retry: Retry, *, lot: float | None = None) -> float:
    """Seconds before the attempt after this one, the first being 1: doubled each time up to a cap, then spread.

    Args:
        lot: where in the upper half of the wait it falls, from 0 to 1; drawn at random unless given.
    """
    drawn = random.random() if lot is None else lot
    wait = min(retry.cap, retry.base * 2.0 ** min(attempt - 1, 32)) * (0.5 + drawn / 2)
    after = retry_after(error)
    return wait if after is None else max(wait, after)


def retry_after(error: BaseException) -> float | None:
    """Seconds that whoever refused a request asked to be left alone for."""
    if isinstance(error, OperatorError) and error.__cause__ is not None:
        return retry_after(error.__cause__)
    return error.retry_after if isinstance(error, RequestRejected) else None


def job_delay_ms(
    error: BaseException, attempt: int, steps: Mapping[str, Step], *, lot: float | None = None
) -> int | None:
    """Milliseconds before a job that failed is tried again; None when it is not."""
    if cause(error) not in PASSING.on:
        return None
    if isinstance(error, OperatorError):
        step = steps.get(error.args[0])
        if step is not None and (step.retry.max or cause(error) not in step.retry.on):
            return None
        if isinstance(error.__cause__, RequestRejected) and retry_after(error) is None:
            return None  # Refused for good: the request does not fit, now or later.
    return round(1000 * backoff(error, attempt, PASSING, lot=lot))


def max_attempts(steps: Iterable[Step]) -> int:
    """Attempts at a job of these steps: what the most patient of them allows, where it names ``worker_lost``."""
    allowed = [1 + step.retry.max for step in steps if step.retry.max and "worker_lost" in step.retry.on]
    return max(allowed, default=ATTEMPTS)
