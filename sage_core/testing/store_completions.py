"""The part of the `JobStore` contract about what is done in few statements: batches of completions, and the claim."""

from __future__ import annotations

import pytest

from sage_core.common.errors import StoreError
from sage_core.common.records import Job
from sage_core.platform.records import Completion, NewJob
from sage_core.platform.store import JobStore
from sage_core.testing.store_suite import LONG, OVER, StoreSuite, row, submit


def ends(jobs: list[Job], *, fence: int = 0) -> list[Completion]:
    """The completion of every job, with a result of its own."""
    return [
        Completion(
            job_id=job.id,
            fence=fence or job.fence,
            run_id=job.run_id,
            session=1,
            result_key=f"{job.id}",
            body=b"%d" % (fence or job.fence),
            failures=job.part,
        )
        for job in jobs
    ]


class CompletionContract(StoreSuite):
    """A batch is one transaction, and a stale attempt in it spoils nothing but itself."""

    def test_a_batch_records_every_result(self, store: JobStore) -> None:
        ids = submit(store, 5)
        with store.transaction() as tx:
            [last] = tx.insert_jobs([NewJob(run_id="run", stage="reduce")])
            tx.insert_edges([(id, last) for id in ids])
        jobs = store.claim("w", lease_ms=LONG, limit=9)
        with store.transaction() as tx:
            lost, ready = tx.complete(ends(jobs))
            assert (lost, [job.id for job in ready]) == (set(), [last])
            assert tx.release(ids) == []
        done = store.jobs("run", stages=["map"])
        assert [(job.state, job.result_key, job.failures, job.session) for job in done] == [
            ("done", str(id), part, 1) for part, id in enumerate(ids)
        ]
        assert store.results(map(str, ids)) == {str(id): b"1" for id in ids}
        assert [(a.job_id, a.fence, a.worker, a.outcome) for a in store.attempts("run")] == [
            (id, 1, "w", "done") for id in ids
        ]

    def test_a_stale_attempt_in_a_batch_is_named_and_leaves_nothing(self, store: JobStore, other: JobStore) -> None:
        lost, kept = submit(store, 2)
        [stale] = store.claim("a", lease_ms=OVER)
        mine = other.claim("b", lease_ms=LONG, limit=2)
        assert {job.id for job in mine} == {lost, kept}
        whole = [stale, *(job for job in mine if job.id == kept)]
        with store.transaction() as tx:
            assert tx.complete(ends(whole)) == ({lost}, [])
        assert store.results([f"{lost}", f"{kept}"]) == {f"{kept}": b"1"}
        assert (row(store, lost).state, row(store, kept).state) == ("running", "done")
        assert [(a.job_id, a.fence, a.outcome) for a in store.attempts("run")] == [
            (lost, 1, "expired"),
            (kept, 1, "done"),
        ]

    def test_completing_twice_counts_once(self, store: JobStore) -> None:
        [id] = submit(store)
        jobs = store.claim("w", lease_ms=LONG)
        for stale in (set(), {id}):
            with store.transaction() as tx:
                assert tx.complete(ends(jobs)) == (stale, [])
        assert len(store.attempts("run")) == 1

    def test_an_attempt_that_gave_its_job_back_completes_nothing(self, store: JobStore) -> None:
        [id] = submit(store)
        [job] = store.claim("w", lease_ms=LONG)
        store.give_back([(id, job.fence)])
        with store.transaction() as tx:
            assert tx.complete(ends([job])) == ({id}, [])
        assert (row(store, id).state, store.results([f"{id}"])) == ("ready", {})

    def test_what_nothing_waits_for_is_completed_at_once(self, store: JobStore, other: JobStore) -> None:
        lost, *kept = submit(store, 3)
        [stale] = store.claim("a", lease_ms=OVER)
        mine = other.claim("b", lease_ms=LONG, limit=9)
        whole = [stale, *(job for job in mine if job.id != lost)]
        assert store.complete(ends(whole)) == {lost}
        assert store.complete(ends(whole)) == {lost, *kept}
        assert store.results(map(str, (lost, *kept))) == {f"{id}": b"1" for id in kept}
        done = [job for job in store.jobs("run") if job.state == "done"]
        assert [(job.id, job.failures, job.session, job.lease_until) for job in done] == [
            (id, part, 1, None) for part, id in enumerate(kept, 1)
        ]
        assert [(a.job_id, a.worker, a.outcome) for a in store.attempts("run") if a.job_id != lost] == [
            (id, "b", "done") for id in kept
        ]
        assert store.complete([]) == set()
        with store.transaction(), pytest.raises(StoreError, match="already open"):
            store.complete(ends(mine))

    def test_an_expired_lease_is_seen_to_while_others_are_ready(self, store: JobStore, other: JobStore) -> None:
        first, second = submit(store, 2)
        [lost] = store.claim("a", lease_ms=OVER)
        assert lost.id == first
        [job] = other.claim("b", lease_ms=LONG)
        assert [(a.job_id, a.outcome) for a in store.attempts("run")] == [(first, "expired")]
        assert {job.id, *(j.id for j in store.jobs("run") if j.state == "ready")} == {first, second}

    def test_nothing_to_complete_is_nothing(self, store: JobStore) -> None:
        with store.transaction() as tx:
            assert tx.complete([]) == (set(), [])
