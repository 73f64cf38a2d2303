"""The part of the `JobStore` contract about holding a job: claims, leases, fences, attempts."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from sage_core.common.errors import StaleAttempt
from sage_core.common.records import Job
from sage_core.platform.records import NewJob, NewRun
from sage_core.platform.store import HOUSEKEEPING, JobStore
from sage_core.testing.store_suite import LONG, OVER, StoreSuite, at_once, finish, row, submit

#: Every write about a job that carries a fence.
VERBS = ("finish", "fail", "renew", "memo_put", "give_back", "put_result", "snooze")


class ClaimContract(StoreSuite):
    """A job is held by one attempt at a time, and only that attempt can write about it."""

    # ------------------------------------------------------------ claims

    def test_a_claim_takes_the_best_rank_first_and_each_job_once(self, store: JobStore, other: JobStore) -> None:
        with store.transaction() as tx:
            tx.insert_run(NewRun(id="run", workflow="flow"))
            ranks = (3.0, 1.5, 2.0, -1.0)
            ids = tx.insert_jobs([NewJob(run_id="run", stage="s", part=n, rank=r) for n, r in enumerate(ranks)])
        first, second = store.claim("a", lease_ms=LONG, limit=3), other.claim("b", lease_ms=LONG, limit=3)
        assert [job.id for job in first] == [ids[3], ids[1], ids[2]]
        assert [job.id for job in second] == [ids[0]]
        assert [(job.state, job.fence, job.attempt) for job in first] == [("running", 1, 1)] * 3
        assert row(store, ids[3]).worker == "a"

    def test_a_claim_keeps_to_its_run_and_queue(self, store: JobStore) -> None:
        one, two = submit(store, run_id="one"), submit(store, run_id="two")
        assert store.claim("w", lease_ms=LONG, queue="gpu", limit=9) == []
        assert [job.id for job in store.claim("w", lease_ms=LONG, run_id="two", limit=9)] == two
        assert [job.id for job in store.claim("w", lease_ms=LONG, limit=9)] == one

    def test_a_delayed_job_waits(self, store: JobStore) -> None:
        submit(store, delay_ms=60_000)
        assert store.claim("w", lease_ms=LONG) == []
        due = store.next_due()
        assert due is not None
        assert 50_000 < due <= 60_000

    def test_claims_from_many_threads_never_share_a_job(self, store: JobStore, tmp_path: Path) -> None:
        ids = submit(store, 120)
        taken: list[tuple[int, int]] = []

        def work(name: str) -> None:
            with self.make(tmp_path) as mine:
                while jobs := mine.claim(name, lease_ms=LONG, limit=3):
                    for job in jobs:
                        finish(mine, job)
                        taken.append((job.id, job.fence))

        at_once(*(partial(work, f"w{n}") for n in range(6)))
        assert sorted(taken) == [(id, 1) for id in ids]
        assert store.counts("run") == {"done": 120}

    # ------------------------------------------------------------ leases and fences

    def test_an_expired_lease_hands_the_job_over_under_a_higher_fence(self, store: JobStore, other: JobStore) -> None:
        [id] = submit(store)
        [lost] = store.claim("a", lease_ms=OVER)
        [job] = other.claim("b", lease_ms=LONG)
        assert (job.id, job.fence, job.attempt) == (id, lost.fence + 1, 2)
        assert row(store, id).worker == "b"

    @pytest.mark.parametrize("verb", VERBS)
    def test_a_stale_attempt_is_refused(self, verb: str, store: JobStore, other: JobStore) -> None:
        [id] = submit(store)
        [old] = store.claim("a", lease_ms=OVER)
        [new] = other.claim("b", lease_ms=LONG)
        before = row(other, id)
        self._write_late(store, verb, old)
        assert row(other, id) == before
        assert other.results(["late"]) == {}
        assert other.memo_get(["late"]) == {}
        assert other.renew([(id, new.fence)], LONG) == {id}

    @pytest.mark.parametrize("verb", VERBS)
    def test_an_attempt_that_is_over_is_refused(self, verb: str, store: JobStore) -> None:
        # The fence is still the job's, only the state is not.
        [id] = submit(store)
        [job] = store.claim("a", lease_ms=LONG)
        store.give_back([(id, job.fence)])
        before = row(store, id)
        self._write_late(store, verb, job)
        assert row(store, id) == before
        assert store.results(["late"]) == {}
        assert store.memo_get(["late"]) == {}

    def _write_late(self, store: JobStore, verb: str, job: Job) -> None:
        writes: dict[str, Callable[[], object]] = {
            "finish": lambda: finish(store, job, "late"),
            "put_result": lambda: finish(store, job, "late"),
            "fail": lambda: store.fail(job.id, job.fence, "late", retry_in_ms=0),
            "snooze": lambda: store.snooze(job.id, job.fence, 0),
            "memo_put": lambda: store.memo_put({"late": b"x"}, job_id=job.id, fence=job.fence),
        }
        if verb == "renew":
            assert store.renew([(job.id, job.fence)], LONG) == set()
        elif verb == "give_back":
            assert store.give_back([(job.id, job.fence)]) == 0
        else:
            with pytest.raises(StaleAttempt, match=f"job {job.id}: fence {job.fence} is stale"):
                writes[verb]()

    def test_a_renewed_lease_keeps_the_job(self, store: JobStore, other: JobStore) -> None:
        ids = submit(store, 2)
        jobs = store.claim("a", lease_ms=OVER, limit=2)
        # Nobody has taken it back yet, so a late beat still saves it.
        assert store.renew([(jobs[0].id, jobs[0].fence)], LONG) == {ids[0]}
        assert [job.id for job in other.claim("b", lease_ms=LONG, limit=2)] == [ids[1]]

    def test_renewing_mixes_up_no_pairs(self, store: JobStore) -> None:
        first, second = submit(store, 2)
        store.claim("a", lease_ms=OVER, limit=1)
        store.claim("a", lease_ms=LONG, limit=2)
        assert {job.id: job.fence for job in store.jobs("run")} == {first: 2, second: 1}
        assert store.renew([(first, 1), (second, 2)], LONG) == set()
        assert store.renew([(first, 2), (second, 2)], LONG) == {first}
        assert store.renew([], LONG) == set()

    def test_a_deadline_ends_an_attempt_that_keeps_renewing(self, store: JobStore) -> None:
        [id] = submit(store, timeout_ms=0, max_attempts=1)
        [job] = store.claim("a", lease_ms=LONG)
        assert store.renew([(id, job.fence)], LONG) == set()
        assert store.claim("b", lease_ms=LONG) == []
        assert row(store, id).state == "failed"
        assert "timed out" in row(store, id).error

    def test_a_poison_job_fails_when_its_attempts_are_spent(self, store: JobStore) -> None:
        [id] = submit(store, max_attempts=3)
        fences = [job.fence for _ in range(5) for job in store.claim("w", lease_ms=OVER)]
        assert fences == [1, 2, 3]
        assert row(store, id).state == "failed"
        assert row(store, id).error == "worker lost: w stopped renewing its lease (attempt 3 of 3)"
        assert [a.outcome for a in store.attempts("run")] == ["expired"] * 3

    def test_housekeeping_is_bounded(self, store: JobStore) -> None:
        submit(store, HOUSEKEEPING + 10, max_attempts=1)
        store.claim("a", lease_ms=OVER, limit=HOUSEKEEPING + 10)
        store.claim("b", lease_ms=LONG)
        assert store.counts("run") == {"failed": HOUSEKEEPING, "running": 10}
        store.claim("b", lease_ms=LONG)
        assert store.counts("run") == {"failed": HOUSEKEEPING + 10}

    def test_giving_back_refunds_the_attempt_and_never_the_fence(self, store: JobStore) -> None:
        [id] = submit(store)
        [job] = store.claim("a", lease_ms=LONG)
        assert store.give_back([(id, job.fence)]) == 1
        assert (row(store, id).state, row(store, id).attempt, row(store, id).fence) == ("ready", 0, 1)
        [again] = store.claim("b", lease_ms=LONG)
        assert (again.attempt, again.fence) == (1, 2)
        store.give_back([(id, again.fence)], refund=False)
        assert (row(store, id).attempt, row(store, id).fence) == (1, 2)

    @pytest.mark.parametrize("verb", ["give_back", "lost", "expired"])
    def test_a_job_that_comes_back_keeps_its_place_among_its_siblings(self, verb: str, store: JobStore) -> None:
        first, second, third = submit(store, 3)
        [job] = store.claim("a", lease_ms=OVER if verb == "expired" else LONG)
        while store.now() <= row(store, third).run_at:
            pass  # Until the clock tells the two moments apart.
        if verb == "give_back":
            store.give_back([(first, job.fence)])
        elif verb == "lost":
            store.release_worker("a", "gone")
        assert [job.id for job in store.claim("b", lease_ms=LONG, limit=2)] == [first, second]

    def test_failing_retries_after_the_delay_and_then_for_good(self, store: JobStore) -> None:
        [id] = submit(store, max_attempts=2)
        [job] = store.claim("w", lease_ms=LONG)
        assert store.fail(id, job.fence, "rate limit", retry_in_ms=60_000) == "ready"
        assert store.claim("w", lease_ms=LONG) == []
        assert row(store, id).error == "rate limit"
        store.resume_run("run")
        for expected in ("ready", "failed"):
            [job] = store.claim("w", lease_ms=LONG)
            assert store.fail(id, job.fence, "no such model", retry_in_ms=0) == expected
        assert row(store, id).error == "no such model (attempt 2 of 2)"
        assert store.claim("w", lease_ms=LONG) == []

    def test_a_fatal_error_is_not_retried(self, store: JobStore) -> None:
        [id] = submit(store)
        [job] = store.claim("w", lease_ms=LONG)
        assert store.fail(id, job.fence, "bad option", retry_in_ms=None) == "failed"
        assert row(store, id).error == "bad option"

    def test_a_dead_worker_loses_its_jobs_at_once(self, store: JobStore, other: JobStore) -> None:
        first, second = submit(store, 2, max_attempts=2)
        store.claim("dead", lease_ms=LONG)
        [kept] = store.claim("alive", lease_ms=LONG)
        assert other.release_worker("dead", "exit code -9") == 1
        assert (row(store, first).state, row(store, second).state) == ("ready", "running")
        assert [job.id for job in store.claim("dead", lease_ms=LONG)] == [first]
        other.release_worker("dead", "exit code -9")
        assert row(store, first).error == "worker lost: exit code -9 (attempt 2 of 2)"
        assert store.renew([(kept.id, kept.fence)], LONG) == {second}

    def test_renewing_by_worker_prolongs_what_each_still_holds(self, store: JobStore, other: JobStore) -> None:
        first, second, third = submit(store, 3)
        for worker in ("a", "b", "c"):
            [job] = store.claim(worker, lease_ms=LONG)
            store.renew([(job.id, job.fence)], OVER if worker == "c" else LONG)
        assert store.renew_workers(["a", "b"], OVER) == {first: 1, second: 1}
        # Nobody has taken them back yet, so a late beat still saves them.
        assert store.renew_workers(["a", "b"], LONG) == {first: 1, second: 1}
        assert [(job.id, job.fence) for job in other.claim("d", lease_ms=LONG, limit=3)] == [(third, 2)]
        assert store.renew_workers(["c", "unknown"], LONG) == {}
        [job] = [job for job in store.jobs("run") if job.id == first]
        finish(store, job)
        assert store.renew_workers(["a", "b", "d"], LONG) == {second: 1, third: 2}
        assert store.renew_workers([], LONG) == {}

    def test_renewing_by_worker_keeps_the_deadline(self, store: JobStore) -> None:
        submit(store, timeout_ms=0)
        store.claim("a", lease_ms=LONG)
        assert store.renew_workers(["a"], LONG) == {}

    def test_a_snoozed_job_comes_back_as_if_nothing_had_been(self, store: JobStore) -> None:
        [id] = submit(store, max_attempts=1)
        [job] = store.claim("a", lease_ms=LONG)
        store.snooze(id, job.fence, 60_000)
        assert (row(store, id).state, row(store, id).attempt, row(store, id).fence) == ("ready", 0, 1)
        assert store.claim("a", lease_ms=LONG) == []
        due = store.next_due()
        assert due is not None
        assert 50_000 < due <= 60_000
        store.resume_run("run")
        for fence in (2, 3, 4):
            [job] = store.claim("a", lease_ms=LONG)
            assert (job.attempt, job.fence) == (1, fence)
            store.snooze(id, job.fence, 0)
        assert store.attempts("run") == []
