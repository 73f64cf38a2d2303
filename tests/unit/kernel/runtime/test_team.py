"""Tests of sage_core.kernel.runtime.team: how many workers a queue gets."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from sage_core.common.config import QueueConfig
from sage_core.kernel.runtime.crew import Crew
from sage_core.kernel.runtime.team import DEATHS, Quota, Team
from sage_core.platform.records import NewJob, NewRun
from sage_core.platform.store import JobStore
from sage_core.testing.flows import Flows
from tests.unit.kernel.runtime import drive_operators


@pytest.fixture
def flows(tmp_path: Path) -> Flows:
    return Flows(tmp_path, {"driven": drive_operators})


@pytest.fixture
def store(flows: Flows) -> Iterator[JobStore]:
    with flows.open_store() as store:
        yield store


@pytest.fixture
def crew(flows: Flows, store: JobStore) -> Iterator[Crew]:
    """Workers of a queue in which nothing is, so that those of the tests' queues only have to be counted."""
    crew = Crew(
        "--queue=none", url=flows.project.url, folder=flows.home, host=flows.host, paths=flows.project.paths, lease=30.0
    )
    yield crew
    crew.kill()
    crew.stop(store)


def queue(store: JobStore, jobs: int) -> None:
    with store.transaction() as tx:
        tx.insert_run(NewRun(id="r", workflow="w", queue="q", supervisor="somebody"))
        tx.insert_jobs([NewJob(run_id="r", stage="s", part=part, queue="q") for part in range(jobs)])


@pytest.mark.parametrize(
    ("config", "ready", "workers"),
    [
        (QueueConfig(), 0, 0),
        (QueueConfig(), 1, 1),
        (QueueConfig(), 9, 2),
        (QueueConfig(max=4), 3, 3),
        (QueueConfig(max=4, buffer=5), 6, 2),
        (QueueConfig(min=1), 0, 1),
        (QueueConfig(min=3), 0, 3),
    ],
)
def test_workers_are_started_as_the_ready_jobs_need_them(
    store: JobStore, crew: Crew, config: QueueConfig, ready: int, workers: int
) -> None:
    queue(store, ready)
    team = Team("q", config, crew, Quota(None), count=2)
    team.staff(store, [], "here")
    team.staff(store, [], "here")
    assert (len(crew), team.started) == (workers, workers)


def test_busy_workers_are_not_counted_for_what_waits(store: JobStore, crew: Crew) -> None:
    queue(store, 2)
    team = Team("q", QueueConfig(max=4, buffer=2), crew, Quota(None), count=2)
    team.staff(store, [], "here")
    (worker,) = crew.workers()
    assert store.claim(worker, queue="q", lease_ms=60_000)
    team.staff(store, [], "here")
    assert len(crew) == 2


def test_a_run_that_only_has_to_be_ended_needs_a_worker_too(store: JobStore, crew: Crew) -> None:
    with store.transaction() as tx:
        tx.insert_run(NewRun(id="r", workflow="w", queue="q"))
    Team("q", QueueConfig(), crew, Quota(None), count=2).staff(store, [], "here")
    assert len(crew) == 1


def test_a_quota_is_handed_out_in_shares_and_comes_back_with_the_dead(store: JobStore, crew: Crew) -> None:
    queue(store, 9)
    quota = Quota(5)
    team = Team("q", QueueConfig(max=2), crew, quota, count=2)
    team.staff(store, [], "here")
    assert (len(crew), quota.left) == (2, 0)
    for pid in crew.pids():
        os.kill(pid, signal.SIGKILL)
        os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
    assert team.bury(store)
    assert quota.left == 5


def test_a_queue_is_given_up_when_its_workers_die_in_a_row_and_hold_nothing(store: JobStore, crew: Crew) -> None:
    queue(store, 1)
    team = Team("q", QueueConfig(max=1), crew, Quota(None), count=1)
    for death in range(DEATHS):
        while not crew:
            assert not team.error
            team.staff(store, [], "here")
            threading.Event().wait(0.01)
        (pid,) = crew.pids()
        os.kill(pid, signal.SIGKILL)
        os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
        team.bury(store)
        assert team.is_pausing == (death < DEATHS - 1)
    assert team.error.startswith(f"{DEATHS} workers died without running a job; see ")
    team.staff(store, [], "here")
    assert len(crew) == 0


def test_a_death_in_the_middle_of_a_job_is_the_jobs(store: JobStore, crew: Crew) -> None:
    queue(store, 1)
    team = Team("q", QueueConfig(max=1), crew, Quota(None), count=1)
    for _ in range(DEATHS + 1):
        team.staff(store, [], "here")
        (worker,), (pid,) = crew.workers(), crew.pids()
        with store.transaction() as tx:
            tx.insert_run(NewRun(id=worker, workflow="w", queue="q", supervisor="somebody"))
            tx.insert_jobs([NewJob(run_id=worker, stage="s", queue="q")])
        assert store.claim(worker, queue="q", lease_ms=60_000)
        os.kill(pid, signal.SIGKILL)
        os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
        assert team.bury(store)
    assert team.error == ""


def test_quiet_is_a_queue_in_which_nothing_runs_or_comes_soon(store: JobStore, crew: Crew) -> None:
    team = Team("q", QueueConfig(), crew, Quota(None), count=2)
    assert team.is_quiet(store, [], 0)
    with store.transaction() as tx:
        tx.insert_run(NewRun(id="r", workflow="w", queue="q", supervisor="somebody"))
        tx.insert_jobs([NewJob(run_id="r", stage="s", queue="q", delay_ms=60_000)])
    assert team.is_quiet(store, [], 0)
    assert not team.is_quiet(store, [], 120_000)
    with store.transaction() as tx:
        tx.insert_jobs([NewJob(run_id="r", stage="t", queue="q")])
    assert not team.is_quiet(store, [], 0)
    assert store.claim("elsewhere", queue="q", lease_ms=60_000)
    assert not team.is_quiet(store, [], 0)
