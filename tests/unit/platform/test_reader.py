"""What the store is asked: how rows become records, and how a run is found; the contract suite asks the rest."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from sage_core.common.errors import UsageError
from sage_core.common.records import Job
from sage_core.platform.reader import claimed_job, job_row, listed
from sage_core.platform.records import JobRow, NewJob, NewRun
from sage_core.platform.store import JobStore

ROW = (7, "r", "map", 3, "running", 9, 1, 3, 10, 20, "default", 2, 1_000, None, 1_500, 9_000, None, "w", 0, None, 1)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[JobStore]:
    with JobStore.open(f"sqlite:///{tmp_path}/s.db") as store:
        yield store


def test_a_list_is_one_json_parameter() -> None:
    assert listed(each for each in ("a", 'b"', 1)) == '["a","b\\"",1]'
    assert listed([]) == "[]"


def test_a_row_of_sqlite_becomes_a_job_with_its_types() -> None:
    job = job_row((*ROW, 4, "boom", "n1", None, "", None, 2))
    assert (type(job), job.id, job.start, job.stop, job.worker, job.error) == (JobRow, 7, 10, 20, "w", "boom")
    assert job.reused is True
    assert (job.rank, type(job.rank)) == (2.0, float)


def test_a_worker_is_given_the_part_of_a_job_that_it_needs() -> None:
    job = claimed_job((*ROW, 4, "boom", None, None, "", None, 0))
    assert type(job) is Job
    assert job == Job(
        id=7,
        run_id="r",
        stage="map",
        part=3,
        state="running",
        fence=9,
        attempt=1,
        max_attempts=3,
        start=10,
        stop=20,
    )


def test_the_columns_of_a_stored_job_are_in_the_order_of_its_record(store: JobStore) -> None:
    new = NewJob(run_id="r", stage="s", part=2, start=5, stop=9, queue="q", rank=1.5, max_attempts=4, timeout_ms=60)
    with store.transaction() as tx:
        tx.insert_run(NewRun(id="r", workflow="flow"))
        tx.insert_jobs([new])
        (job,) = tx.jobs("r")
    for name in ("run_id", "stage", "part", "start", "stop", "queue", "rank", "max_attempts", "timeout_ms"):
        assert getattr(job, name) == getattr(new, name), name
    assert (job.state, job.reused, job.deps_left, job.error) == ("ready", False, 0, "")


def test_a_run_that_is_not_found_is_explained(store: JobStore) -> None:
    with pytest.raises(UsageError, match=r"No run has the id 'x'\. The store holds no runs\.(.|\n)*sage runs list"):
        store.run("x")
    with store.transaction() as tx:
        for number in range(7):
            tx.insert_run(NewRun(id=f"250101-{number}", workflow="flow"))
    assert store.run("250101-3").id == "250101-3"
    with pytest.raises(UsageError, match=r"No run has the id '250101-33'.*250101-3"):
        store.run("250101-33")
    with pytest.raises(UsageError, match=r"'25' is the start of several runs: (250101-\d, ){4}250101-\d, …"):
        store.run("25")
    # A prefix is text, not a pattern; the empty one names no run.
    for given in ("%", "250101_3", ""):
        with pytest.raises(UsageError, match=f"No run has the id {given!r}"):
            store.run(given)


def test_questions_about_a_run_that_is_not_there_have_empty_answers(store: JobStore) -> None:
    assert (store.jobs("no"), store.edges("no"), store.counts("no"), store.attempts("no")) == ([], [], {}, [])
    assert (store.results([]), store.memo_get(["no"]), store.file_digests(["no"])) == ({}, {}, {})
    assert store.jobs("no", stages=[]) == []
