"""Stores that break the protocol in one place each: the contract suite must fail every one of them."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, ClassVar

import pytest

from sage_core.common.errors import StoreError
from sage_core.platform.database import Dialect
from sage_core.platform.store import JobStore
from sage_core.platform.transaction import Transaction
from sage_core.testing import JobStoreContract


class Mutant(JobStore):
    """A store with one piece of one statement replaced."""

    change: ClassVar[tuple[str, str, str]]

    @classmethod
    def statements(cls, dialect: Dialect) -> Mapping[str, str]:
        name, old, new = cls.change
        texts = dict(super().statements(dialect))
        assert old in texts[name], f"{name} holds no {old!r}: {texts[name]}"
        texts[name] = texts[name].replace(old, new)
        return texts


class CommitsAnyway(JobStore):
    """A crash inside a transaction leaves half of it."""

    @contextmanager
    def transaction(self) -> Iterator[Transaction]:
        self._db.begin()
        try:
            yield Transaction(self._db)
        finally:
            self._db.commit()


def mutant(statement: str, old: str, new: str = "") -> type[JobStore]:
    return type("Mutant", (Mutant,), {"change": (statement, old, new)})


FENCE, STATE = " AND job.fence = :fence", " AND job.state = 'running'"
STALE, OVER = "test_a_stale_attempt_is_refused", "test_an_attempt_that_is_over_is_refused"
PAIRS = "(job.id, job.fence) IN (SELECT json_extract(anon_2.value, '$[0]') AS json_extract_1, "
MUTANTS: dict[str, tuple[type[JobStore], str, str | None]] = {
    "finish without its fence": (mutant("finish", FENCE), STALE, "finish"),
    "finish without its state": (mutant("finish", STATE), OVER, "finish"),
    "result of a stale attempt": (mutant("finish", FENCE), STALE, "put_result"),
    "fail without its fence": (mutant("held_one", FENCE), STALE, "fail"),
    "fail without its state": (mutant("held_one", STATE), OVER, "fail"),
    "memo without its fence": (mutant("held_one", FENCE), STALE, "memo_put"),
    "memo without its state": (mutant("held_one", STATE), OVER, "memo_put"),
    "renew without its fence": (mutant("renew", PAIRS, "(1, 1) IN (SELECT 1, 1 OR "), STALE, "renew"),
    "renew without its state": (mutant("renew", STATE), OVER, "renew"),
    "give back without its fence": (mutant("held_pairs", PAIRS, "(1, 1) IN (SELECT 1, 1 OR "), STALE, "give_back"),
    "give back takes the fence back": (
        mutant("settle", "SET state", "SET fence=job.fence - 1, state"),
        "test_giving_back_refunds_the_attempt_and_never_the_fence",
        None,
    ),
    "claim without a higher fence": (
        mutant("claim", "fence=(job.fence + 1)", "fence=max(job.fence, 1)"),
        "test_an_expired_lease_hands_the_job_over_under_a_higher_fence",
        None,
    ),
    "claim takes what runs": (
        mutant("claim", "job.state = 'ready'", "job.state IN ('ready', 'running')"),
        "test_a_claim_takes_the_best_rank_first_and_each_job_once",
        None,
    ),
    "claim without an order": (
        mutant("claim", "ORDER BY job.rank, job.run_at, job.id ", "ORDER BY job.id "),
        "test_a_claim_takes_the_best_rank_first_and_each_job_once",
        None,
    ),
    "claim too early": (
        mutant("claim", "job.run_at <=", "0 * job.run_at <="),
        "test_a_delayed_job_waits",
        None,
    ),
    "renew beyond the deadline": (
        mutant("renew", "job.deadline_at IS NULL OR", "1 OR"),
        "test_a_deadline_ends_an_attempt_that_keeps_renewing",
        None,
    ),
    "housekeeping without a bound": (
        mutant("held_expired", "LIMIT :limit", "LIMIT 1000 * :limit"),
        "test_housekeeping_is_bounded",
        None,
    ),
    "release without decrement": (
        mutant("job_release", "deps_left=(job.deps_left - :n)", "deps_left=job.deps_left"),
        "test_a_job_is_released_when_its_last_predecessor_is_done",
        None,
    ),
    "release at the first predecessor": (
        mutant("job_release", " AND job.deps_left <= :n", ""),
        "test_a_job_is_released_when_its_last_predecessor_is_done",
        None,
    ),
    "release counted twice": (
        mutant("edge_release", " AND edge.released = 0", ""),
        "test_releasing_counts_a_job_once_and_only_when_it_is_done",
        None,
    ),
    "release before the job is done": (
        mutant("edge_release", "AND job.state = 'done'", ""),
        "test_releasing_counts_a_job_once_and_only_when_it_is_done",
        None,
    ),
    "expand twice": (
        mutant("job_insert", "INSERT INTO", "INSERT OR REPLACE INTO"),
        "test_a_completion_expands_its_successors",
        None,
    ),
    "expand without raising the collect": (
        mutant("job_block", "deps_left=(job.deps_left + :n)", "deps_left=max(job.deps_left, 1)"),
        "test_a_completion_expands_its_successors",
        None,
    ),
    "later results replace the first": (
        mutant("result_insert", "DO NOTHING", '("key") DO UPDATE SET body = excluded.body'),
        "test_the_first_result_of_a_key_stays",
        None,
    ),
    "reuse of a job that is done": (
        mutant("finish_unclaimed", "job.state IN ('ready', 'blocked')", "1"),
        "test_a_reused_job_is_done_without_a_claim",
        None,
    ),
    "a lost result still counts": (
        mutant("edge_restore", "released=0", "released=1"),
        "test_resuming_runs_a_job_again_whose_result_is_gone",
        None,
    ),
    "half a transaction": (CommitsAnyway, "test_a_crash_inside_a_completion_leaves_nothing", None),
}


def run_test(store_class: type[JobStore], test: str, case: str | None, place: Path) -> None:
    """Run one test of the suite on a store, as pytest would."""

    def make(self: JobStoreContract, place: Path) -> JobStore:
        return store_class.open(f"sqlite:///{place}/sage.db")

    suite: Any = type("Suite", (JobStoreContract,), {"make": make})()
    method = getattr(suite, test)
    with ExitStack() as handles:
        store = handles.enter_context(suite.make(place))
        given = {"store": store, "tmp_path": place, "verb": case}
        wanted = inspect.signature(method).parameters
        if "other" in wanted:
            given["other"] = handles.enter_context(suite.make(place))
        method(**{name: given[name] for name in wanted})


@pytest.mark.parametrize("name", MUTANTS)
def test_the_suite_fails_a_mutant(name: str, tmp_path: Path) -> None:
    store_class, test, case = MUTANTS[name]
    (tmp_path / "sound").mkdir()
    run_test(JobStore, test, case, tmp_path / "sound")
    with pytest.raises((AssertionError, pytest.fail.Exception, StoreError)) as caught:
        run_test(store_class, test, case, tmp_path)
    # The history's key refuses a second end of one attempt; any other SQL error would prove nothing about the suite.
    assert not isinstance(caught.value, StoreError) or "refused by a constraint" in str(caught.value)
