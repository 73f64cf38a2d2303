"""The part of the `JobStore` contract about finishing a job: completion, release, expansion, transactions."""

from __future__ import annotations

import pytest

from sage_core.common.errors import StaleAttempt, StoreError, UsageError
from sage_core.common.records import Job
from sage_core.platform.attempts import cancelled
from sage_core.platform.records import AttemptRow, NewJob, NewRun
from sage_core.platform.store import JobStore
from sage_core.testing.store_suite import LONG, Crash, StoreSuite, finish, row, submit


class ReleaseContract(StoreSuite):
    """A completion and all that follows from it happen together, once."""

    # ------------------------------------------------------------ completion and release

    def test_a_job_is_released_when_its_last_predecessor_is_done(self, store: JobStore) -> None:
        first, second = submit(store, 2)
        with store.transaction() as tx:
            [last] = tx.insert_jobs([NewJob(run_id="run", stage="reduce")])
            tx.insert_edges([(first, last), (second, last)])
        jobs = store.claim("w", lease_ms=LONG, limit=9)
        assert [job.id for job in jobs] == [first, second]
        assert finish(store, jobs[0], "one") == []
        assert (row(store, last).state, row(store, last).deps_left) == ("blocked", 1)
        assert [job.id for job in finish(store, jobs[1], "two")] == [last]
        assert store.results(["one", "two", "none"]) == {"one": b"body", "two": b"body"}
        assert [job.id for job in store.claim("w", lease_ms=LONG)] == [last]

    def test_releasing_counts_a_job_once_and_only_when_it_is_done(self, store: JobStore) -> None:
        first, second = submit(store, 2)
        with store.transaction() as tx:
            [last] = tx.insert_jobs([NewJob(run_id="run", stage="reduce")])
            tx.insert_edges([(first, last), (second, last)])
        [job] = store.claim("w", lease_ms=LONG)
        with store.transaction() as tx:
            assert tx.release([first, second]) == []
        finish(store, job)
        with store.transaction() as tx:
            assert tx.release([first, first]) == []
        assert (row(store, last).state, row(store, last).deps_left) == ("blocked", 1)

    def test_a_crash_inside_a_completion_leaves_nothing(self, store: JobStore, other: JobStore) -> None:
        [id] = submit(store)
        with store.transaction() as tx:
            [last] = tx.insert_jobs([NewJob(run_id="run", stage="reduce")])
            tx.insert_edges([(id, last)])
        [job] = store.claim("w", lease_ms=LONG)
        before = other.jobs("run")
        with pytest.raises(Crash):
            self._crash_after_release(store, job)
        assert (other.jobs("run"), other.results(["key"]), other.attempts("run")) == (before, {}, [])
        assert [j.id for j in finish(store, job)] == [last]

    def _crash_after_release(self, store: JobStore, job: Job) -> None:
        with store.transaction() as tx:
            tx.put_result("key", b"body", run_id="run")
            tx.finish(job.id, job.fence, result_key="key", session=1)
            assert len(tx.release([job.id])) == 1
            raise Crash

    def test_a_completion_expands_its_successors(self, store: JobStore) -> None:
        [source] = submit(store)
        with store.transaction() as tx:
            [collect] = tx.insert_jobs([NewJob(run_id="run", stage="collect")])
            tx.insert_edges([(source, collect)])
        [job] = store.claim("w", lease_ms=LONG)
        with store.transaction() as tx:
            tx.finish(job.id, job.fence, result_key=None, session=1)
            parts = tx.insert_jobs([NewJob(run_id="run", stage="embed", part=n) for n in range(3)])
            tx.insert_edges([(source, part) for part in parts] + [(part, collect) for part in parts])
            assert tx.release([source]) == []
        # The source is done, so it holds up nothing: the parts are ready, the collect waits for them alone.
        assert [row(store, id).state for id in (*parts, collect)] == ["ready", "ready", "ready", "blocked"]
        assert row(store, collect).deps_left == 3
        with pytest.raises(StoreError, match="refused by a constraint"), store.transaction() as tx:
            tx.insert_jobs([NewJob(run_id="run", stage="embed", part=0)])
        released = [finish(store, job) for job in store.claim("w", lease_ms=LONG, limit=9)]
        assert [[job.id for job in jobs] for jobs in released] == [[], [], [collect]]

    def test_an_empty_expansion_releases_its_collect(self, store: JobStore) -> None:
        [source] = submit(store)
        with store.transaction() as tx:
            [collect] = tx.insert_jobs([NewJob(run_id="run", stage="collect")])
            tx.insert_edges([(source, collect)])
        [job] = store.claim("w", lease_ms=LONG)
        assert [j.id for j in finish(store, job)] == [collect]

    def test_no_edge_leads_to_a_job_that_runs(self, store: JobStore) -> None:
        first, second = submit(store, 2)
        store.claim("w", lease_ms=LONG, limit=2)
        with pytest.raises(StoreError, match="an edge leads to a job that has been claimed"), store.transaction() as tx:
            tx.insert_edges([(first, second)])
        assert store.edges("run") == []

    def test_a_failed_job_keeps_its_successors_blocked(self, store: JobStore) -> None:
        [first] = submit(store)
        with store.transaction() as tx:
            [last] = tx.insert_jobs([NewJob(run_id="run", stage="reduce")])
            tx.insert_edges([(first, last)])
        [job] = store.claim("w", lease_ms=LONG)
        store.fail(first, job.fence, "boom", retry_in_ms=None)
        assert store.counts("run") == {"failed": 1, "blocked": 1}
        assert store.next_due() is None

    def test_a_reused_job_is_done_without_a_claim(self, store: JobStore) -> None:
        first, second = submit(store, 2)
        with store.transaction() as tx:
            tx.insert_edges([(first, second)])
            tx.finish(first, None, result_key="found", reused=True, session=1)
            tx.finish(second, None, result_key="found", reused=True, session=1)
            assert tx.release([first, second]) == []
        assert [(j.state, j.reused, j.result_key, j.fence) for j in store.jobs("run")] == [
            ("done", True, "found", 0)
        ] * 2
        with pytest.raises(StaleAttempt), store.transaction() as tx:
            tx.finish(first, None, result_key="again", session=1)

    def test_the_history_keeps_every_attempt(self, store: JobStore) -> None:
        [id] = submit(store)
        [job] = store.claim("a", lease_ms=LONG)
        store.fail(id, job.fence, "once", retry_in_ms=0)
        [job] = store.claim("b", lease_ms=LONG)
        finish(store, job)
        history = store.attempts("run")
        assert [(a.fence, a.attempt, a.worker, a.outcome, a.error) for a in history] == [
            (1, 1, "a", "retried", "once"),
            (2, 2, "b", "done", ""),
        ]
        assert all(isinstance(a, AttemptRow) and a.finished_at >= a.started_at > 0 for a in history)

    # ------------------------------------------------------------ one job is cancelled

    def test_a_running_job_that_is_seized_is_its_workers_no_more(self, store: JobStore, other: JobStore) -> None:
        first, second = submit(store, 2)
        with store.transaction() as tx:
            [last] = tx.insert_jobs([NewJob(run_id="run", stage="reduce")])
            tx.insert_edges([(first, last), (second, last)])
        one, two = store.claim("w", lease_ms=LONG, limit=9)
        with other.transaction() as tx:
            seized = tx.seize(first)
            assert (seized.fence, seized.attempt) == (one.fence + 1, 1)
            tx.put_result("skipped", b"", run_id="run")
            tx.finish(first, seized.fence, result_key="skipped", session=1, failures=3)
            assert tx.release([first]) == []
        assert not store.holds(first, one.fence)
        assert store.renew([(first, one.fence)], LONG) == set()
        with pytest.raises(StaleAttempt):
            finish(store, one)
        # What waited for both of them is released by the one that is left.
        assert [job.id for job in finish(store, two)] == [last]
        assert (row(store, first).state, row(store, first).failures) == ("done", 3)
        history = [(a.job_id, a.fence, a.worker, a.outcome) for a in store.attempts("run")]
        assert history == [(first, one.fence + 1, "w", "cancelled"), (second, two.fence, "w", "done")]

    def test_a_ready_job_is_seized_and_failed_for_good(self, store: JobStore) -> None:
        [id] = submit(store, delay_ms=LONG)
        with store.transaction() as tx:
            assert tx.settle([cancelled(tx.seize(id), "cancelled; why")], history=False) == 1
        assert (row(store, id).state, row(store, id).error) == ("failed", "cancelled; why")
        pulse = store.pulse("run")
        assert pulse is not None
        assert (pulse.failed, pulse.left) == (True, False)
        assert [(a.attempt, a.outcome) for a in store.attempts("run")] == [(0, "cancelled")]
        assert store.claim("w", lease_ms=LONG) == []

    def test_only_what_is_ready_or_runs_can_be_seized(self, store: JobStore) -> None:
        first, last = submit(store, 2)
        with store.transaction() as tx:
            tx.insert_edges([(first, last)])
        for id, said in ((last, f"Job {last} is blocked: only ready and running"), (999, "No job has the id 999")):
            with pytest.raises(UsageError, match=said), store.transaction() as tx:
                tx.seize(id)
        [job] = store.claim("w", lease_ms=LONG)
        finish(store, job)
        with pytest.raises(UsageError, match=f"Job {first} is done"), store.transaction() as tx:
            tx.seize(first)

    # ------------------------------------------------------------ transactions

    def test_transactions_do_not_nest_and_writes_need_one(self, store: JobStore) -> None:
        with store.transaction() as tx, pytest.raises(StoreError, match="a transaction is already open"):
            store.claim("w", lease_ms=LONG)
        with pytest.raises(StoreError, match="a write outside a transaction"):
            tx.insert_run(NewRun(id="late", workflow="flow"))
        assert store.runs() == []

    def test_another_handle_sees_what_is_committed_and_only_that(self, store: JobStore, other: JobStore) -> None:
        other.changed()
        with store.transaction() as tx:
            tx.insert_run(NewRun(id="run", workflow="flow"))
            assert tx.run("run").id == "run"
            assert other.runs() == []
            assert not other.changed()
        assert [run.id for run in other.runs()] == ["run"]
        assert other.changed()
        assert not other.changed()
