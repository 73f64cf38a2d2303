"""Observers of jobs: one that keeps what it hears passes the suite, wrong ones are found out."""

from __future__ import annotations

import pytest

from sage_core import Attempt, hookimpl
from sage_core.testing import JobObserverContract
from tests.contract.suites import assert_fails


class Keeps:
    def __init__(self) -> None:
        self.heard: list[Attempt] = []

    @hookimpl
    def sage_on_job_finished(self, attempt: Attempt) -> None:
        self.heard.append(attempt)


class TestKeeps(JobObserverContract):
    plugin = Keeps()


class OnlySuccess:
    @hookimpl
    def sage_on_job_finished(self, attempt: Attempt) -> None:
        assert attempt.outcome == "done", f"what is {attempt.outcome}?"


class Rates:
    @hookimpl
    def sage_on_job_finished(self, attempt: Attempt) -> None:
        assert 1 / max(attempt.finished_at - attempt.started_at - 1, 0.5) < 1, "too quick"


class Answers:
    @hookimpl
    def sage_on_job_finished(self, attempt: Attempt) -> str:
        return attempt.outcome


class Deaf:
    @hookimpl
    def sage_operators(self) -> dict[str, str]:
        return {}


@pytest.mark.parametrize(
    ("plugin", "test", "message"),
    [
        (OnlySuccess, "test_it_takes_every_outcome", "what is failed"),
        (Rates, "test_it_takes_an_attempt_of_no_length", "too quick"),
        (Answers, "test_it_gives_nothing_back", "return nothing"),
        (Deaf, "test_it_gives_nothing_back", "does not observe"),
    ],
)
def test_a_wrong_observer_fails_the_suite(plugin: type, test: str, message: str) -> None:
    assert_fails(JobObserverContract, test, message, plugin=plugin())
