"""Priorities and limits as the workers of a queue meet them, on both databases."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from sage_core.builtins import HEAD_START, Priority
from sage_core.common.config import Config, StoreConfig
from sage_core.common.records import Work
from sage_core.platform.records import NewJob, NewRun
from sage_core.platform.store import JobStore
from sage_core.testing.flows import Flows
from tests.postgres import schema_url
from tests.unit.kernel.runtime import flow_operators
from tests.unit.kernel.runtime.one_process import one_process

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


WORKERS, JOBS, PLACES = 4, 24, 2


class Counter:
    """How many jobs are in somebody's hands, at most."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._now = self.most = self.all = 0

    def add(self, count: int) -> None:
        with self._lock:
            self._now += count
            self.most = max(self.most, self._now)
            self.all += max(count, 0)


def worker(url: str, name: str, counter: Counter) -> None:
    """Claim and finish limited jobs until none is left."""
    with JobStore.open(url) as store:
        while any(job.state != "done" for job in store.jobs("r")):
            claimed = store.claim(name, lease_ms=LEASE, limit=3)
            counter.add(len(claimed))
            for job in claimed:
                # In the hands of others, meanwhile, is whatever they were given.
                assert store.job(job.id).state == "running"
                counter.add(-1)
                with store.transaction() as tx:
                    tx.finish(job.id, job.fence, result_key=None, session=1)


def test_no_more_jobs_of_a_limit_run_than_it_has_places_whoever_claims(url: str) -> None:
    with JobStore.open(url) as store, store.transaction() as tx:
        tx.insert_run(NewRun(id="r", workflow="w", status="running"))
        tx.make_slots("crm", PLACES)
        tx.insert_jobs([NewJob(run_id="r", stage="s", part=part, limit_key="crm") for part in range(JOBS)])
    counter = Counter()
    threads = [threading.Thread(target=worker, args=(url, f"w{n}", counter)) for n in range(WORKERS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert counter.all == JOBS
    assert 1 <= counter.most <= PLACES


def test_a_step_names_its_limit_and_sage_toml_says_how_many(url: str, tmp_path: Path) -> None:
    flows = Flows(tmp_path, {"flows": flow_operators}, config=Config(store=StoreConfig(url=url), limits={"crm": 2}))
    tree = {
        "steps": {
            "items": {"use": "f.items", "with": {"texts": list("abcdef")}, "partition": 1},
            "up": {"use": "f.upper", "in": {"text": "items.text"}, "limit": "crm"},
            "again": {"use": "f.upper", "in": {"text": "up.text"}},
        }
    }
    with one_process(flows, tree) as run:
        run.submit()
        run.one()
        keys = {job.stage: job.limit_key for job in run.jobs()}
        assert keys == {"items": None, "up": "crm", "again": None}
        parts = len(run.jobs("up"))
        assert parts > 2
        claimed = run.store.claim("w", lease_ms=LEASE, limit=10)
        assert [job.stage for job in claimed] == ["up", "up"]
        # A place is free again when its job is done.
        run.complete(claimed[0], run.work(claimed[0]), fence=claimed[0].fence)
        stages = sorted(job.stage for job in run.store.claim("w", lease_ms=LEASE, limit=10))
        assert stages == ["again", "up"]
