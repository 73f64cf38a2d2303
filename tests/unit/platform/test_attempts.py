from __future__ import annotations

import pytest

from sage_core.platform.attempts import Held, expired, refunded, retried, settle_row


def held(attempt: int = 1, deadline_at: int | None = None) -> Held:
    return Held(id=7, fence=9, attempt=attempt, max_attempts=3, worker="w", claimed_at=1_000, deadline_at=deadline_at)


def test_a_lease_that_the_deadline_cut_is_a_timeout() -> None:
    late = expired(held(deadline_at=3_000), now=3_000)
    assert (late.outcome, late.state, late.error) == (
        "timeout",
        "ready",
        "timed out after 2 s, the [workers] deadline of an attempt",
    )
    silent = expired(held(deadline_at=3_000), now=2_999)
    assert (silent.outcome, silent.error) == ("expired", "worker lost: w stopped renewing its lease")


@pytest.mark.parametrize(
    ("attempt", "delay", "state", "outcome", "error"),
    [
        (1, 500, "ready", "retried", "boom"),
        (3, 500, "failed", "failed", "boom (attempt 3 of 3)"),
        (1, None, "failed", "failed", "boom"),
    ],
)
def test_a_retry_needs_an_attempt_and_a_delay(
    attempt: int, delay: int | None, state: str, outcome: str, error: str
) -> None:
    ending = retried(held(attempt), "retried", "boom", delay_ms=delay)
    assert (ending.state, ending.outcome, ending.error, ending.attempt) == (state, outcome, error, attempt)
    assert ending.delay_ms == (500 if state == "ready" else 0)


def test_a_refund_takes_the_attempt_back_and_keeps_the_fence() -> None:
    row = settle_row(refunded(held(2)))
    assert (row["new_attempt"], row["new_state"], row["fence"]) == (1, "ready", 9)
    assert refunded(held(0)).attempt == 0
