"""Priorities and limits as the workers of a queue meet them, on both databases."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from sage_core.builtins import HEAD_START, Priority
from sage_core.common.records import Work
from sage_core.platform.records import NewJob, NewRun
from sage_core.platform.store import JobStore
from tests.postgres import schema_url

#: Longer than any test.
LEASE = 600_000


def store_url(name: str, place: Path) -> str:
    return f"sqlite:///{place}/sage.db" if name == "sqlite" else schema_url(place)


@pytest.fixture(params=["sqlite", "postgres"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return store_url(request.param, tmp_path)


@pytest.fixture
def store(url: str) -> Iterator[JobStore]:
    with JobStore.open(url) as store:
        yield store


def job(stage: str, *, minute: float, priority: int, start: int) -> NewJob:
    """A job as it is ranked when it is enqueued `minute` minutes after `start`, epoch ns."""
    arrival = start + int(minute * HEAD_START)
    work = Work(id=stage, lane="default", kind="job", arrival=arrival, priority=priority)
    return NewJob(run_id="r", stage=stage, rank=Priority().rank(work))


def test_a_low_priority_overtakes_what_comes_after_the_head_start_of_others(store: JobStore) -> None:
    start = store.now() * 1_000_000
    jobs = [job(f"high{minute}", minute=minute, priority=5, start=start) for minute in (6, 5.5, 4, 0)]
    jobs.insert(2, job("low", minute=0, priority=0, start=start))
    with store.transaction() as tx:
        tx.insert_run(NewRun(id="r", workflow="w", status="running"))
        tx.insert_jobs(jobs)
    order = [store.claim("w", lease_ms=LEASE)[0].stage for _ in jobs]
    assert order == ["high0", "high4", "low", "high5.5", "high6"]
