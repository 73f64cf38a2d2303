"""What the store knows of the past, on both databases."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from sage_core.common.errors import UsageError
from sage_core.platform.records import NewRun
from sage_core.platform.spelling import DIALECTS
from sage_core.platform.store import JobStore
from sage_core.platform.upkeep import PAGE, Removed
from sage_core.testing.store_suite import LONG, finish, row, submit
from tests.postgres import schema_url

#: An age that everything has already.
ANY = -LONG


@pytest.fixture(params=DIALECTS)
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[JobStore]:
    url = f"sqlite:///{tmp_path}/s.db" if request.param == "sqlite" else schema_url(tmp_path)
    with JobStore.open(url) as store:
        yield store


def test_jobs_are_found_by_what_became_of_them(store: JobStore) -> None:
    ids = submit(store, 3)
    more = submit(store, 1, run_id="other")
    [job] = store.claim("w", lease_ms=LONG)
    store.fail(job.id, job.fence, "boom", retry_in_ms=None)
    assert [found.id for found in store.jobs_found()] == [*more, *ids[::-1]]
    assert [found.error for found in store.jobs_found(state="failed")] == ["boom"]
    assert [found.id for found in store.jobs_found(run_id="other", queue="default")] == more
    assert store.jobs_found(queue="gpu") == []
    assert [found.id for found in store.jobs_found(limit=1)] == more
    assert store.job(job.id) == row(store, job.id)
    assert [attempt.outcome for attempt in store.attempts_of(job.id)] == ["failed"]
    with pytest.raises(UsageError, match="No job has the id 99"):
        store.job(99)


def test_a_job_that_is_reopened_comes_before_what_follows_from_it(store: JobStore) -> None:
    first, second = submit(store, 2)
    with store.transaction() as tx:
        tx.insert_edges([(first, second)])
    for _ in range(2):
        [job] = store.claim("w", lease_ms=LONG)
        finish(store, job)
    with store.transaction() as tx:
        tx.reopen([second, first])
    assert [(job.state, job.deps_left, job.attempt, job.fence) for job in store.jobs("run")] == [
        ("ready", 0, 0, 1),
        ("blocked", 1, 0, 1),
    ]
    for id in (first, second):
        [job] = store.claim("w", lease_ms=LONG, limit=9)
        assert (job.id, job.fence) == (id, 2)
        finish(store, job)
    assert store.counts("run") == {"done": 2}


def test_old_runs_go_with_what_only_they_needed(store: JobStore) -> None:
    for id in ("old", "live"):
        submit(store, run_id=id)
        [job] = store.claim("w", lease_ms=LONG, run_id=id)
        finish(store, job, id)
    store.finish_run("old", "succeeded")
    with store.transaction() as tx:
        tx.put_result("nobodys", b"", run_id="old")
        # Nothing is old yet.
        assert tx.remove_runs(keep_ms=LONG, results_ms=LONG) == Removed()
        assert tx.remove_runs(keep_ms=ANY, results_ms=LONG) == Removed(runs=1)
        assert tx.remove_runs(keep_ms=ANY, results_ms=ANY) == Removed(results=2)
    assert [run.id for run in store.runs()] == ["live"]
    assert (store.jobs("old"), store.attempts("old"), len(store.jobs("live"))) == ([], [], 1)
    assert store.results(["old", "live", "nobodys"]).keys() == {"live"}


def test_what_was_remembered_or_shared_is_told_by_its_age(store: JobStore) -> None:
    with store.transaction() as tx:
        tx.memo_put({"key": b"value"})
        tx.put_blob("digest", [b"x"])
        assert tx.remove_memos(keep_ms=LONG) == 0
        assert tx.remove_memos(keep_ms=ANY) == 1
    assert store.memo_get(["key"]) == {}
    assert (store.old_blobs(LONG), store.old_blobs(ANY)) == (set(), {"digest"})


def test_results_are_read_page_by_page(store: JobStore) -> None:
    count = 2 * PAGE + 1
    with store.transaction() as tx:
        for n in range(count):
            tx.put_result(f"{n}", b"%d" % n, run_id="run")
    assert sorted(map(int, store.result_bodies())) == [*range(count)]


def test_a_run_goes_on_under_other_pins(store: JobStore) -> None:
    with store.transaction() as tx:
        tx.insert_run(NewRun(id="run", workflow="flow", pins=b"old", plan=b"p"))
        tx.pin_run("run", pins=b"new", plan=b"q")
    assert (store.run("run").pins, store.run("run").plan) == (b"new", b"q")
