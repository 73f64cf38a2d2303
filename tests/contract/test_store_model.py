"""The store against a small model of it: whatever is done in whatever order, both end in the same state.

On SQLite and, with fewer examples, on PostgreSQL.
"""

from __future__ import annotations

import shutil
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test

from sage_core.common.errors import StaleAttempt, StoreError
from sage_core.platform.database import Dialect
from sage_core.platform.records import NewJob, NewRun
from sage_core.platform.store import JobStore
from sage_core.testing.store_suite import LONG, OVER
from tests.contract.mutants import MUTANTS
from tests.postgres import schema_url

RUNS = ("one", "two")
WORKERS = ("a", "b")
TRIES = 2


@dataclass
class ModelJob:
    run: str
    before: list[int] = field(default_factory=list)
    state: str = "ready"
    attempt: int = 0
    fence: int = 0
    worker: str | None = None
    over: bool = False
    limited: bool = False

    def end(self, state: str, *, refund: bool = False) -> None:
        self.state, self.attempt = state, self.attempt - refund

    def spend(self) -> None:
        self.end("failed" if self.attempt >= TRIES else "ready")


class StoreModel(RuleBasedStateMachine):
    """Two workers, two runs, a key with one slot; the model keeps a job's state in seven fields and knows no SQL."""

    store_class: ClassVar[type[JobStore]] = JobStore
    dialect: ClassVar[Dialect] = "sqlite"

    def __init__(self) -> None:
        super().__init__()
        self.place = Path(tempfile.mkdtemp())
        url = f"sqlite:///{self.place}/sage.db" if self.dialect == "sqlite" else schema_url(self.place)
        self.stores = [self.store_class.open(url, synchronous="OFF") for _ in WORKERS]
        #: The attempt that took the key, whether or not it still runs.
        self.computing: tuple[int, int] | None = None
        self.jobs: dict[int, ModelJob] = {}
        self.session = dict.fromkeys(RUNS, 1)
        self.ended = dict.fromkeys(RUNS, False)
        #: Every claim ever made, most of them stale.
        self.claims: list[tuple[int, int]] = []
        with self.stores[0].transaction() as tx:
            tx.make_slots("k", 1)
            for run in RUNS:
                tx.insert_run(NewRun(id=run, workflow="flow", status="running"))
        # Two parts and their collect, so that every example has something to release, and two for one slot.
        first, second = self.add(0, "one", []), self.add(0, "one", [])
        self.add(0, "one", [first, second])
        for _ in range(2):
            self.add(0, "two", [], limited=True)

    def add(self, who: int, run: str, before: list[int], *, limited: bool = False) -> int:
        part, key = len(self.jobs), "k" if limited else None
        # Each has a rank of its own: among equal ones the clock would decide, and no example could be played again.
        job = NewJob(run_id=run, stage="s", part=part, rank=part, max_attempts=TRIES, limit_key=key)
        with self.stores[who].transaction() as tx:
            [id] = tx.insert_jobs([job])
            tx.insert_edges([(b, id) for b in before])
        self.jobs[id] = ModelJob(run=run, before=before, limited=limited)
        if self.left(id):
            self.jobs[id].state = "blocked"
        return id

    def teardown(self) -> None:
        for store in self.stores:
            store.close()
        shutil.rmtree(self.place)

    def left(self, id: int) -> int:
        return sum(self.jobs[b].state != "done" for b in self.jobs[id].before)

    def owns(self, claim: tuple[int, int]) -> bool:
        job = self.jobs[claim[0]]
        return job.state == "running" and job.fence == claim[1]

    @rule(who=st.sampled_from([0, 1]), run=st.sampled_from(RUNS), limited=st.booleans(), data=st.data())
    @precondition(lambda self: len(self.jobs) < 14)
    def enqueue(self, who: int, run: str, limited: bool, data: st.DataObject) -> None:
        if self.ended[run]:
            return
        mine = [id for id, job in self.jobs.items() if job.run == run]
        before = data.draw(st.lists(st.sampled_from(mine), unique=True, max_size=3)) if mine else []
        self.add(who, run, before, limited=limited)

    @rule(who=st.sampled_from([0, 1]))
    def pause(self, who: int) -> None:
        for job in self.jobs.values():
            if job.state == "running" and job.over:
                job.spend()
        for paused in (True, False):
            with self.stores[who].transaction() as tx:
                tx.switch_queue("default", paused=paused)
            if paused:
                assert self.stores[1 - who].claim(WORKERS[who], lease_ms=LONG, limit=9) == []

    @rule(who=st.sampled_from([0, 1]), limit=st.integers(1, 4), lease=st.sampled_from([OVER, LONG]))
    def claim(self, who: int, limit: int, lease: int) -> None:
        for job in self.jobs.values():
            if job.state == "running" and job.over:
                job.spend()
        ready = {id for id, job in self.jobs.items() if job.state == "ready"}
        held = any(job.limited and job.state == "running" for job in self.jobs.values())
        free = {id for id in ready if not self.jobs[id].limited}
        limited = set() if held else ready - free
        taken = self.stores[who].claim(WORKERS[who], lease_ms=lease, limit=limit)
        # Limited jobs that find no slot may have used up the limit, but never all of it.
        assert min(limit, len(free) + bool(limited), 1) <= len(taken) <= min(limit, len(free) + bool(limited))
        assert limited or len(taken) == min(limit, len(free))
        assert sum(self.jobs[job.id].limited for job in taken) <= bool(limited)
        for got in taken:
            job = self.jobs[got.id]
            assert got.id in free | limited
            assert got.fence > job.fence
            job.state, job.attempt, job.fence = "running", job.attempt + 1, job.fence + 1
            job.worker, job.over = WORKERS[who], lease == OVER
            self.claims.append((got.id, got.fence))
        # A claim that found no slot has raised the fence, and changed nothing else.
        for id in limited - {job.id for job in taken}:
            [fence] = [job.fence for job in self.stores[who].jobs(self.jobs[id].run) if job.id == id]
            assert fence in (self.jobs[id].fence, self.jobs[id].fence + 1)
            self.jobs[id].fence = fence

    @rule(
        who=st.sampled_from([0, 1]),
        data=st.data(),
        verb=st.sampled_from(["finish", "fail", "fatal", "renew", "back", "snooze"]),
    )
    @precondition(lambda self: self.claims)
    def write(self, who: int, data: st.DataObject, verb: str) -> None:
        id, fence = claim = data.draw(st.sampled_from(self.claims[::-1]))
        store, job, owns = self.stores[who], self.jobs[id], self.owns(claim)
        if verb == "renew":
            assert store.renew([claim], LONG) == ({id} if owns else set())
            job.over = job.over and not owns
            return
        if verb == "back":
            assert store.give_back([claim]) == owns
            if owns:
                job.end("ready", refund=True)
            return
        try:
            if verb == "snooze":
                store.snooze(id, fence, 0)
            elif verb == "finish":
                with store.transaction() as tx:
                    tx.put_result(f"{id}/{fence}", b"", run_id=job.run)
                    tx.finish(id, fence, result_key=f"{id}/{fence}", session=1)
                    tx.release([id])
            else:
                store.fail(id, fence, "boom", retry_in_ms=0 if verb == "fail" else None)
        except StaleAttempt:
            assert not owns
            assert verb != "finish" or not store.results([f"{id}/{fence}"]) or job.state == "done"
            return
        assert owns
        if verb == "fail":
            job.spend()
        elif verb == "snooze":
            job.end("ready", refund=True)
        else:
            job.end("done" if verb == "finish" else "failed")
        for other_id, other in self.jobs.items():
            if other.state == "blocked" and not self.left(other_id):
                other.state = "ready"

    @rule(who=st.sampled_from([0, 1]))
    def compute(self, who: int) -> None:
        for claim in [claim for claim in self.claims if self.owns(claim)]:
            mine = self.computing is None or self.computing == claim or not self.owns(self.computing)
            with self.stores[who].transaction() as tx:
                assert tx.take_key("key", job_id=claim[0], fence=claim[1]) is mine
            if mine:
                self.computing = claim

    @rule(who=st.sampled_from([0, 1]), dead=st.sampled_from(WORKERS))
    def lose_worker(self, who: int, dead: str) -> None:
        lost = [job for job in self.jobs.values() if job.state == "running" and job.worker == dead]
        assert self.stores[who].release_worker(dead, "gone") == len(lost)
        for job in lost:
            job.spend()

    @rule(who=st.sampled_from([0, 1]), run=st.sampled_from(RUNS))
    def cancel(self, who: int, run: str) -> None:
        assert self.stores[who].cancel_run(run) is not self.ended[run]
        self.ended[run] = True
        for job in self.jobs.values():
            if job.run == run and job.state in ("blocked", "ready", "running"):
                job.state = "cancelled"

    @rule(who=st.sampled_from([0, 1]), run=st.sampled_from(RUNS))
    def resume(self, who: int, run: str) -> None:
        self.session[run] += 1
        assert self.stores[who].resume_run(run) == self.session[run]
        self.ended[run] = False
        for id, job in self.jobs.items():
            # The workers are not registered, so they count as dead.
            if job.run == run and job.state in ("running", "ready", "failed", "cancelled"):
                job.state, job.attempt = "blocked" if self.left(id) else "ready", 0

    @invariant()
    def same_state(self) -> None:
        for number, run in enumerate(RUNS):
            found = {
                job.id: (job.state, job.attempt, job.fence, job.deps_left) for job in self.stores[number].jobs(run)
            }
            wanted = {
                id: (job.state, job.attempt, job.fence, self.left(id))
                for id, job in self.jobs.items()
                if job.run == run
            }
            assert found == wanted


QUICK = settings(
    max_examples=60, stateful_step_count=50, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True
)
#: A schema is made for each example, so there are fewer.
FEW = settings(QUICK, max_examples=8, stateful_step_count=30)


class PostgresModel(StoreModel):
    dialect = "postgresql"


def test_the_store_is_the_model_sqlite() -> None:
    run_state_machine_as_test(StoreModel, settings=QUICK)


def test_the_store_is_the_model_postgresql() -> None:
    run_state_machine_as_test(PostgresModel, settings=FEW)


CAUGHT: list[tuple[str, Dialect]] = [
    ("finish without its fence", "sqlite"),
    ("fail without its state", "sqlite"),
    ("renew without its state", "sqlite"),
    ("claim takes what runs", "sqlite"),
    ("release without decrement", "sqlite"),
    ("release at the first predecessor", "sqlite"),
    ("give back takes the fence back", "sqlite"),
    ("claim without a higher fence", "sqlite"),
    ("claim from a paused queue", "sqlite"),
    ("claim from a paused queue", "postgresql"),
    ("a slot taken from its holder", "sqlite"),
    ("a key taken from its holder", "sqlite"),
]


@pytest.mark.parametrize(("name", "database"), CAUGHT)
def test_the_model_notices_a_mutant(name: str, database: Dialect) -> None:
    class Mutated(StoreModel):
        store_class = MUTANTS[name][0]
        dialect = database

    # The first failure will do; shrinking it would only cost time.
    with pytest.raises((AssertionError, StoreError, ExceptionGroup)):
        run_state_machine_as_test(Mutated, settings=settings(QUICK, phases=[Phase.generate], print_blob=False))
