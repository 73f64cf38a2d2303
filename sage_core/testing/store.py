"""Contract suite for `JobStore`: subclass `JobStoreContract` and say how to open a handle."""

from __future__ import annotations

import pytest

from sage_core.common.errors import StaleAttempt, StoreError, UsageError
from sage_core.platform.processes import this_process
from sage_core.platform.records import FileDigest, NewJob, NewRun
from sage_core.platform.store import JobStore
from sage_core.testing.store_claims import ClaimContract
from sage_core.testing.store_cluster import ClusterContract
from sage_core.testing.store_completions import CompletionContract
from sage_core.testing.store_keys import KeyContract
from sage_core.testing.store_queues import QueueContract
from sage_core.testing.store_releases import ReleaseContract
from sage_core.testing.store_suite import LONG, StoreSuite, finish, row, submit


class RunContract(StoreSuite):
    """Runs, values and workers are kept as they were given."""

    # ------------------------------------------------------------ runs

    def test_runs_are_listed_newest_first(self, store: JobStore) -> None:
        for number in range(5):
            with store.transaction() as tx:
                tx.insert_run(NewRun(id=f"r{number}", workflow=f"flow{number % 2}", graph=b"g", params=b"p"))
        store.finish_run("r2", "failed", error="boom")
        assert [run.id for run in store.runs(3)] == ["r4", "r3", "r2"]
        assert [run.id for run in store.runs(status="failed")] == ["r2"]
        assert [run.id for run in store.runs(workflow="flow1")] == ["r3", "r1"]
        assert (store.run("r0").graph, store.run("r0").params, store.run("r0").outputs) == (b"g", b"p", None)

    def test_a_run_is_found_by_a_prefix_that_is_its_own(self, store: JobStore) -> None:
        for id in ("alpha", "alpine", "alpine2", "be%ta"):
            with store.transaction() as tx:
                tx.insert_run(NewRun(id=id, workflow="flow"))
        assert store.run("alph").id == "alpha"
        assert store.run("alpine").id == "alpine"
        assert store.run("be%").id == "be%ta"
        with pytest.raises(UsageError, match="'alp' is the start of several runs: alpine2, alpine, alpha"):
            store.run("alp")
        with pytest.raises(UsageError, match=r"No run has the id 'alhpa'\. Did you mean 'alpha'"):
            store.run("alhpa")
        for unknown in ("%", "_lpha", ""):
            with pytest.raises(UsageError, match="No run has the id"):
                store.run(unknown)

    def test_a_run_ends_once(self, store: JobStore) -> None:
        submit(store)
        assert store.finish_run("run", "succeeded", b"out")
        assert not store.finish_run("run", "failed", error="late")
        assert not store.cancel_run("run")
        run = store.run("run")
        assert (run.status, run.outputs, run.error) == ("succeeded", b"out", "")
        assert run.finished_at is not None
        assert run.started_at is not None

    def test_an_end_is_unheard_until_it_is_announced_and_each_session_has_one(self, store: JobStore) -> None:
        submit(store)
        assert store.runs_unheard(for_ms=0) == [], "it has not ended"
        store.finish_run("run", "failed")
        assert (store.runs_unheard(for_ms=0), store.runs_unheard(for_ms=LONG)) == (["run"], [])
        with store.transaction() as tx:
            tx.announced("run", 1)
        assert (store.runs_unheard(for_ms=0), store.run("run").announced) == ([], 1)
        assert store.resume_run("run") == 2
        assert store.runs_unheard(for_ms=0) == []
        store.finish_run("run", "succeeded")
        with store.transaction() as tx:
            # Whoever announced the session before is late.
            tx.announced("run", 1)
        assert store.runs_unheard(for_ms=0) == ["run"]

    def test_an_id_is_one_run(self, store: JobStore) -> None:
        submit(store)
        with pytest.raises(StoreError, match="refused by a constraint"):
            submit(store)

    def test_cancelling_stops_every_job(self, store: JobStore) -> None:
        ids = submit(store, 3)
        with store.transaction() as tx:
            tx.insert_edges([(ids[0], ids[2])])
        jobs = store.claim("w", lease_ms=LONG, limit=1)
        assert store.cancel_run("run")
        assert store.counts("run") == {"cancelled": 3}
        assert store.run("run").status == "cancelled"
        with pytest.raises(StaleAttempt):
            finish(store, jobs[0])
        assert [a.outcome for a in store.attempts("run")] == ["cancelled"]

    def test_a_run_that_ends_takes_what_is_left_with_it(self, store: JobStore) -> None:
        ids = submit(store, 4)
        with store.transaction() as tx:
            tx.insert_edges([(ids[0], ids[3])])
        done, held = store.claim("w", lease_ms=LONG, limit=2)
        finish(store, done)
        assert not store.finish_run("run", "failed", session=2)
        assert store.counts("run") == {"done": 1, "running": 1, "ready": 2}
        assert store.finish_run("run", "failed", error="boom", session=1)
        assert [job.state for job in store.jobs("run")] == ["done", "cancelled", "cancelled", "cancelled"]
        assert [(a.job_id, a.outcome) for a in store.attempts("run")] == [(done.id, "done"), (held.id, "cancelled")]
        assert store.claim("w", lease_ms=LONG) == []
        with pytest.raises(StaleAttempt):
            finish(store, held)

    def test_a_result_counts_the_rows_that_failed_in_it(self, store: JobStore) -> None:
        first, second = submit(store, 2)
        [job] = store.claim("w", lease_ms=LONG)
        with store.transaction() as tx:
            tx.finish(first, job.fence, result_key="key", session=1, failures=3)
            tx.finish(second, None, result_key="key", reused=True, session=1, failures=2)
        assert [job.failures for job in store.jobs("run")] == [3, 2]

    def test_resuming_keeps_what_is_done_and_frees_the_rest(self, store: JobStore) -> None:
        ids = submit(store, 4, max_attempts=1)
        with store.transaction() as tx:
            [last] = tx.insert_jobs([NewJob(run_id="run", stage="reduce")])
            tx.insert_edges([(id, last) for id in ids])
        done, failed, held, waiting = store.claim("gone", lease_ms=LONG, limit=4)
        finish(store, done)
        store.fail(failed.id, failed.fence, "boom", retry_in_ms=None)
        store.give_back([(waiting.id, waiting.fence)])
        store.finish_run("run", "failed", error="boom", session=1)
        assert store.resume_run("run") == 2
        run = store.run("run")
        assert (run.status, run.session, run.error, run.finished_at) == ("running", 2, "", None)
        states = {job.id: job.state for job in store.jobs("run")}
        assert states == {done.id: "done", failed.id: "ready", held.id: "ready", waiting.id: "ready", last: "blocked"}
        jobs = store.claim("w", lease_ms=LONG, limit=9)
        assert {job.id: (job.attempt, job.fence) for job in jobs} == dict.fromkeys(ids[1:], (1, 2))
        assert not store.finish_run("run", "failed", session=1)
        assert [j.id for job in jobs for j in finish(store, job)] == [last]

    def test_resuming_after_a_cancel_blocks_what_waits(self, store: JobStore) -> None:
        first, second = submit(store, 2)
        with store.transaction() as tx:
            tx.insert_edges([(first, second)])
        store.cancel_run("run")
        store.resume_run("run")
        assert [job.state for job in store.jobs("run")] == ["ready", "blocked"]

    def test_resuming_runs_a_job_again_whose_result_is_gone(self, store: JobStore) -> None:
        first, second, third = submit(store, 3)
        with store.transaction() as tx:
            [last] = tx.insert_jobs([NewJob(run_id="run", stage="reduce")])
            tx.insert_edges([(first, second), (second, third), (second, last), (third, last)])
        for key in ("one", "two", "three"):
            [job] = store.claim("w", lease_ms=LONG)
            finish(store, job, key)
        [job] = store.claim("w", lease_ms=LONG)
        store.fail(job.id, job.fence, "damaged", retry_in_ms=None)
        with store.transaction() as tx:
            assert tx.forget_results(["one", "two", "unknown"]) == 2
        store.resume_run("run")
        # The third job is done and keeps its result, though it stands behind a lost one.
        assert [(j.state, j.deps_left) for j in store.jobs("run")] == [
            ("ready", 0),
            ("blocked", 1),
            ("done", 1),
            ("blocked", 1),
        ]
        for id, fence in ((first, 2), (second, 2), (last, 2)):
            jobs = store.claim("w", lease_ms=LONG, limit=9)
            assert [(job.id, job.fence) for job in jobs] == [(id, fence)]
            finish(store, jobs[0], f"again{id}")
        assert store.counts("run") == {"done": 4}
        assert {job.deps_left for job in store.jobs("run")} == {0}
        assert store.resume_run("run") == 3
        assert store.counts("run") == {"done": 4}

    def test_a_run_that_is_driven_cannot_be_resumed(self, store: JobStore) -> None:
        submit(store)
        me = this_process("supervisor")
        store.register_worker(me)
        with store.transaction() as tx:
            assert tx.drive_run("run", me.id, session=1)
            assert not tx.drive_run("run", "zombie", session=0)
        with pytest.raises(UsageError, match=f"Run run is being driven by process {me.pid}"):
            store.resume_run("run")
        store.stop_worker(me.id)
        assert store.resume_run("run", supervisor="next") == 2
        assert store.run("run").supervisor == "next"

    # ------------------------------------------------------------ values and workers

    def test_the_first_result_of_a_key_stays(self, store: JobStore) -> None:
        with store.transaction() as tx:
            tx.put_result("key", b"first", run_id="one")
            tx.put_result("key", b"second", run_id="two")
        assert store.results(["key", "unknown"]) == {"key": b"first"}

    def test_many_keys_are_asked_for_at_once(self, store: JobStore) -> None:
        [id] = submit(store)
        [job] = store.claim("w", lease_ms=LONG)
        items = {f"key{n}": b"%d" % n for n in range(40_000)}
        store.memo_put(items, job_id=id, fence=job.fence)
        store.memo_put({"key1": b"other"}, job_id=id, fence=job.fence)
        assert store.memo_get([*items, "unknown"]) == items
        assert store.memo_get([]) == {}

    def test_a_file_digest_is_replaced(self, store: JobStore) -> None:
        old = FileDigest(path="a é", size=1, mtime_ns=2, inode=2**62, digest="x")
        new = FileDigest(path="a é", size=2, mtime_ns=3, inode=4, digest="y")
        store.file_digest_put([old])
        assert store.file_digests(["a é", "b"]) == {"a é": old}
        store.file_digest_put([new])
        assert store.file_digests(["a é"]) == {"a é": new}

    def test_a_worker_says_hello_beats_and_says_goodbye(self, store: JobStore, other: JobStore) -> None:
        [id] = submit(store)
        me = this_process("worker")
        store.register_worker(me)
        assert [worker.id for worker in other.live_workers()] == [me.id]
        assert store.beat(me.id)
        [job] = store.claim(me.id, lease_ms=LONG)
        assert [worker.id for worker in other.bury_dead_workers()] == [me.id]
        assert row(store, id).state == "running"
        store.stop_worker(me.id)
        assert not store.beat(me.id)
        assert other.live_workers() == []
        assert (row(store, id).state, row(store, id).attempt, row(store, id).fence) == ("ready", 0, job.fence)

    def test_next_due_names_the_nearest_moment(self, store: JobStore) -> None:
        assert store.next_due() is None
        submit(store, 2)
        assert store.next_due() == 0
        assert store.next_due(run_id="other") is None
        store.claim("w", lease_ms=LONG, limit=1)
        assert store.next_due() == 0
        store.claim("w", lease_ms=50_000, limit=1)
        due = store.next_due()
        assert due is not None
        assert 40_000 < due <= 50_000


class JobStoreContract(
    ClaimContract, CompletionContract, ReleaseContract, QueueContract, KeyContract, ClusterContract, RunContract
):
    """What every store keeps, whatever the database.

    Override `make`: it opens one more handle on the database kept in `place`, an empty folder when a test begins.
    """
