"""Tests of sage_core.kernel.runtime.retries: what is tried again, when, and how often."""

from __future__ import annotations

import pytest

from sage_core.common.errors import (
    CorruptArtifact,
    EngineHostError,
    ModelError,
    OperatorError,
    RequestRejected,
    StoreError,
    StoreUnavailable,
)
from sage_core.kernel.dataflow.graph import Retry, Signature, Step
from sage_core.kernel.runtime.retries import (
    ATTEMPTS,
    RowFailed,
    backoff,
    cause,
    job_delay_ms,
    max_attempts,
    named,
    retry_after,
)

BUSY = RequestRejected("queue_full", retry_after=90.0)


def step(**retry: object) -> Step:
    return Step(
        name="s",
        use="o",
        signature=Signature(operator="o", shape="map"),
        grain="",
        out="",
        retry=Retry(**retry),  # type: ignore[arg-type] # fields of a Retry
    )


def wrapped(error: Exception) -> OperatorError:
    """As a row's failure ends its job."""
    try:
        raise OperatorError("s", "failed") from error
    except OperatorError as raised:
        return raised


@pytest.mark.parametrize(
    ("error", "found"),
    [
        (BUSY, "rate_limit"),
        (TimeoutError(), "timeout"),
        (ConnectionResetError(), "connection"),
        (EngineHostError("died"), "connection"),
        (StoreUnavailable("sqlite://", "busy"), "connection"),
        (StoreError("sqlite://", "broken"), "error"),
        (ModelError("m", "missing"), "error"),
        (CorruptArtifact("a", "missing"), "error"),
        (ValueError(), "error"),
        (RowFailed("rate_limit", "m"), "rate_limit"),
        (RowFailed("odd", "m"), "error"),
        (wrapped(TimeoutError()), "timeout"),
        (OperatorError("s", "broke its signature"), "error"),
    ],
)
def test_every_failure_has_a_cause(error: Exception, found: str) -> None:
    assert cause(error) == found


def test_error_names_whatever_an_operator_raises() -> None:
    assert named(TimeoutError(), Retry(on=("error",)))
    assert named(ValueError(), Retry(on=("error",)))
    assert not named(ValueError(), Retry())
    assert not named(TimeoutError(), Retry(on=("rate_limit",)))


def test_waits_double_up_to_a_cap_and_are_spread_over_their_upper_half() -> None:
    retry = Retry(base=1.0, cap=10.0)
    assert [backoff(ValueError(), attempt, retry, lot=1.0) for attempt in (1, 2, 3, 4, 5, 60)] == [1, 2, 4, 8, 10, 10]
    assert backoff(ValueError(), 2, retry, lot=0.0) == 1.0
    drawn = {backoff(ValueError(), 3, retry) for _ in range(50)}
    assert len(drawn) > 1
    assert all(2 <= wait <= 4 for wait in drawn)


def test_whoever_refuses_says_how_long_to_wait() -> None:
    assert backoff(BUSY, 1, Retry(), lot=0.0) == 90.0
    assert backoff(RequestRejected("busy", retry_after=0.1), 3, Retry(), lot=1.0) == 4.0
    assert (retry_after(wrapped(BUSY)), retry_after(ValueError())) == (90.0, None)


@pytest.mark.parametrize(
    ("error", "delay"),
    [
        (wrapped(BUSY), 90_000),
        (wrapped(RequestRejected("too long")), None),
        (wrapped(TimeoutError()), 1000),
        (wrapped(ConnectionError()), 1000),
        (StoreUnavailable("sqlite://", "busy"), 1000),
        (wrapped(ValueError()), None),
        (ModelError("m", "missing"), None),
        (MemoryError(), None),
    ],
)
def test_a_job_is_tried_again_for_what_may_go_away_by_itself(error: Exception, delay: int | None) -> None:
    assert job_delay_ms(error, 1, {"s": step()}, lot=1.0) == delay


def test_a_step_that_says_how_its_calls_are_tried_again_has_its_job_fail_with_the_last() -> None:
    assert job_delay_ms(wrapped(BUSY), 1, {"s": step(max=2)}) is None
    assert job_delay_ms(wrapped(TimeoutError()), 1, {"s": step(on=("rate_limit",))}) is None
    # What is no call's failure is not the step's to decide.
    assert job_delay_ms(EngineHostError("died"), 2, {"s": step(max=2)}, lot=1.0) == 2000


def test_how_often_the_job_of_a_lost_worker_is_tried() -> None:
    assert max_attempts([step(), step()]) == ATTEMPTS == 3
    assert max_attempts([step(max=1), step(max=5, on=("worker_lost",))]) == 6
    assert max_attempts([step(max=1, on=("worker_lost",))]) == 2
    assert max_attempts([step(max=9, on=("timeout",))]) == 3
