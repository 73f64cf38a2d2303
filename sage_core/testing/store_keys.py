"""The part of the `JobStore` contract about keys: of runs that must not be twice, of results that one job computes."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pytest

from sage_core.common.errors import StaleAttempt, StoreError, UsageError
from sage_core.platform.records import NewJob, NewRun, OnConflict
from sage_core.platform.store import JobStore
from sage_core.testing.store_suite import LONG, OVER, StoreSuite, at_once, finish, submit


def begin(
    store: JobStore, id: str, on_conflict: OnConflict = "error", *, unique: str | None = None, once: str | None = None
) -> str | None:
    """Insert a run with keys, as an enqueue does."""
    run = NewRun(id=id, workflow="flow", unique_key=unique, idempotency_key=once)
    with store.transaction() as tx:
        return tx.insert_run(run, on_conflict=on_conflict)


class KeyContract(StoreSuite):
    """A key belongs to one run, or to one running attempt, whoever else asks for it."""

    # ------------------------------------------------------------ keys of runs

    def test_a_unique_key_is_refused_kept_or_taken_over(self, store: JobStore) -> None:
        assert begin(store, "one", unique="nightly") is None
        with pytest.raises(UsageError, match=r"Run one \(queued\) has the unique key 'nightly' already"):
            begin(store, "two", unique="nightly")
        assert begin(store, "two", "ignore", unique="nightly") == "one"
        assert [run.id for run in store.runs()] == ["one"]
        with store.transaction() as tx:
            tx.insert_jobs([NewJob(run_id="one", stage="s", part=part) for part in range(2)])
        [job] = store.claim("w", lease_ms=LONG)
        assert begin(store, "two", "replace", unique="nightly") is None
        assert [(run.id, run.status, run.error) for run in store.runs()] == [
            ("two", "queued", ""),
            ("one", "cancelled", "replaced by run two"),
        ]
        assert store.counts("one") == {"cancelled": 2}
        with pytest.raises(StaleAttempt):
            finish(store, job)

    def test_a_unique_key_is_free_when_its_run_has_ended(self, store: JobStore) -> None:
        begin(store, "one", unique="nightly")
        store.finish_run("one", "failed", error="boom")
        assert begin(store, "two", unique="nightly") is None
        assert begin(store, "three", "ignore", unique="nightly") == "two"

    def test_an_idempotency_key_is_spent_once(self, store: JobStore) -> None:
        assert begin(store, "one", once="order-7") is None
        store.finish_run("one", "succeeded")
        assert begin(store, "two", "ignore", once="order-7") == "one"
        for policy in ("error", "replace"):
            with pytest.raises(UsageError, match=r"Run one \(succeeded\) has the idempotency key 'order-7' already"):
                begin(store, "two", policy, once="order-7")
        assert begin(store, "two", once="order-8") is None

    def test_runs_without_keys_and_with_other_keys_do_not_meet(self, store: JobStore) -> None:
        assert [begin(store, id) for id in ("one", "two")] == [None, None]
        assert [begin(store, key, unique=key, once=key) for key in ("a", "b")] == [None, None]
        # A key of one kind is not one of the other.
        assert begin(store, "c", unique="d", once="a2") is None
        assert begin(store, "d", unique="a2", once="d") is None

    def test_an_id_that_exists_is_refused_whatever_the_policy(self, store: JobStore) -> None:
        begin(store, "one", unique="nightly")
        for policy in ("ignore", "replace", "error"):
            with pytest.raises(StoreError, match=r"run one exists \(refused by a constraint\)"):
                begin(store, "one", policy, unique="other")

    @pytest.mark.parametrize("policy", ["ignore", "replace", "error"])
    def test_a_race_for_a_unique_key_leaves_one_run(self, policy: OnConflict, store: JobStore, tmp_path: Path) -> None:
        answers: dict[str, str | None] = {}
        refused: list[str] = []

        def enqueue(id: str) -> None:
            with self.make(tmp_path) as mine:
                try:
                    answers[id] = begin(mine, id, policy, unique="nightly")
                except UsageError:
                    refused.append(id)

        names = [f"r{n}" for n in range(6)]
        at_once(*(partial(enqueue, name) for name in names))
        live = [run.id for run in store.runs() if run.status == "queued"]
        made = [id for id, answer in answers.items() if answer is None]
        assert len(live) == 1
        assert sorted(run.id for run in store.runs()) == sorted(made)
        if policy == "replace":
            assert sorted(made) == names
        else:
            assert made == live
            assert set(answers.values()) <= {None, *live}
            assert len(refused) == (5 if policy == "error" else 0)

    # ------------------------------------------------------------ keys of results

    def test_one_running_attempt_computes_a_key(self, store: JobStore, other: JobStore) -> None:
        submit(store, 2)
        first, second = store.claim("w", lease_ms=LONG, limit=2)
        with store.transaction() as tx:
            assert tx.take_key("key", job_id=first.id, fence=first.fence)
            assert tx.take_key("key", job_id=first.id, fence=first.fence)
        with other.transaction() as tx:
            assert not tx.take_key("key", job_id=second.id, fence=second.fence)
            assert tx.take_key("other", job_id=second.id, fence=second.fence)
            # What is not one's own cannot be dropped.
            tx.drop_key("key", job_id=second.id, fence=second.fence)
            assert not tx.take_key("key", job_id=second.id, fence=second.fence)
        with store.transaction() as tx:
            tx.drop_key("key", job_id=first.id, fence=first.fence)
        with other.transaction() as tx:
            assert tx.take_key("key", job_id=second.id, fence=second.fence)

    def test_a_key_is_free_when_its_attempt_has_ended(self, store: JobStore, other: JobStore) -> None:
        submit(store, 2)
        [first] = store.claim("w", lease_ms=OVER)
        with store.transaction() as tx:
            assert tx.take_key("key", job_id=first.id, fence=first.fence)
        again, second = sorted(other.claim("w2", lease_ms=LONG, limit=2), key=lambda job: job.id)
        assert (again.id, again.fence) == (first.id, 2)
        with other.transaction() as tx:
            # The job runs, but under another fence: the attempt that took the key is over.
            assert tx.take_key("key", job_id=second.id, fence=second.fence)
            assert not tx.take_key("key", job_id=again.id, fence=again.fence)
        finish(other, second)
        with other.transaction() as tx:
            assert tx.take_key("key", job_id=again.id, fence=again.fence)

    def test_a_race_for_a_key_has_one_winner(self, store: JobStore, tmp_path: Path) -> None:
        submit(store, 6)
        won: list[int] = []

        def take(worker: str) -> None:
            with self.make(tmp_path) as mine:
                [job] = mine.claim(worker, lease_ms=LONG)
                with mine.transaction() as tx:
                    if tx.take_key("key", job_id=job.id, fence=job.fence):
                        won.append(job.id)

        at_once(*(partial(take, f"w{n}") for n in range(6)))
        assert len(won) == 1
