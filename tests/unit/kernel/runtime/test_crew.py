"""Tests of sage_core.kernel.runtime.crew: worker processes that end by themselves, by force, or when told to."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from sage_core.kernel.runtime import launch
from sage_core.kernel.runtime.crew import Crew
from sage_core.platform.records import NewRun
from sage_core.platform.store import JobStore
from sage_core.testing.flows import Flows
from tests.unit.kernel.runtime import drive_operators

WORKFLOW = {"name": "w", "steps": {"numbers": {"use": "d.numbers", "with": {"n": 2}}}}


@pytest.fixture
def flows(tmp_path: Path) -> Flows:
    return Flows(tmp_path, {"driven": drive_operators})


@pytest.fixture
def store(flows: Flows) -> Iterator[JobStore]:
    with flows.open_store() as store:
        yield store


def crew_of(flows: Flows, store: JobStore, *, lease: float = 30.0) -> Crew:
    """A crew for a run in which nothing is ready."""
    prepared = launch.bind(flows.graph(WORKFLOW), {}, flows.host, flows.project, run_id="r")
    with store.transaction() as tx:
        tx.insert_run(NewRun(id="r", workflow="w", status="running", plan=prepared.encode()))
    project = flows.project
    return Crew("--run=r", url=project.url, folder=flows.home, host=flows.host, paths=project.paths, lease=lease)


def wait_for_the_end_of(pid: int) -> None:
    os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)


def wait_until_at_work(store: JobStore, number: int) -> None:
    while len(store.live_workers()) < number:
        threading.Event().wait(0.005)


def test_workers_of_a_run_that_is_over_leave_and_are_no_deaths(flows: Flows, store: JobStore) -> None:
    crew = crew_of(flows, store)
    store.finish_run("r", "succeeded")
    crew.fill(2)
    pids = crew.pids()
    for pid in pids:
        wait_for_the_end_of(pid)

    assert not crew.all_alive()
    assert len(pids) == 2
    assert [(end.code, end.jobs) for end in crew.bury(store)] == [(0, 0), (0, 0)]
    assert (crew.deaths, crew.pids(), len(crew)) == (0, [], 0)
    assert store.live_workers() == []


def test_a_worker_whose_parent_is_another_process_leaves(flows: Flows, store: JobStore) -> None:
    crew = crew_of(flows, store)
    worker = crew.start(parent=os.getpid() + 1)
    assert crew.workers() == [worker]
    wait_for_the_end_of(crew.pids()[0])
    (end,) = crew.bury(store)
    assert (end.worker, end.code, crew.deaths) == (worker, 0, 0)


def test_a_killed_worker_is_a_death_and_is_replaced(flows: Flows, store: JobStore) -> None:
    crew = crew_of(flows, store)
    crew.fill(1)
    first = crew.pids()
    os.kill(first[0], signal.SIGKILL)
    wait_for_the_end_of(first[0])

    assert [end.code for end in crew.bury(store)] == [-signal.SIGKILL]
    assert crew.deaths == 1
    crew.fill(1)
    assert len(crew.pids()) == 1
    assert crew.pids() != first
    crew.stop(store)


def test_idle_workers_end_by_themselves_when_they_are_told_to_stop(flows: Flows, store: JobStore) -> None:
    crew = crew_of(flows, store)
    crew.fill(2)
    wait_until_at_work(store, 2)
    log = flows.project.paths.logs / "workers.log"

    crew.stop(store, grace=30)

    assert crew.pids() == []
    assert store.live_workers() == []
    assert log.read_text() == "", "a worker that is told to stop has nothing to complain about"


def test_workers_that_do_not_listen_are_killed_and_their_jobs_come_back_unspent(flows: Flows, store: JobStore) -> None:
    crew = crew_of(flows, store)
    crew.fill(1)
    wait_until_at_work(store, 1)
    (pid,) = crew.pids()
    os.kill(pid, signal.SIGSTOP)

    crew.stop(store, grace=0.05)

    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
    assert store.live_workers() == []


def test_kill_waits_for_nothing(flows: Flows, store: JobStore) -> None:
    crew = crew_of(flows, store)
    crew.fill(1)
    (pid,) = crew.pids()
    crew.kill()
    wait_for_the_end_of(pid)
    assert len(crew.bury(store)) == 1


def test_a_sign_of_life_is_good_for_another_try(flows: Flows, store: JobStore) -> None:
    crew = crew_of(flows, store)
    crew.fill(1)
    wait_until_at_work(store, 1)
    os.kill(crew.pids()[0], signal.SIGSTOP)
    # The first is heard; the store was away, and there is no other sign until the second try.
    assert [crew.living() for _ in range(3)] == [crew.workers()] * 3
    crew.stop(store, grace=0.05)


def test_a_worker_that_falls_silent_is_no_more_counted_then_killed(flows: Flows, store: JobStore) -> None:
    (flows.home / "sage.toml").write_text("[workers]\nlease = 0.6\n")
    crew = crew_of(flows, store, lease=0.6)
    crew.fill(1)
    (pid,) = crew.pids()
    seen = [1]
    # The state of a worker that has begun to give signs: only then is it missed.
    while not crew.living() or not store.live_workers():
        threading.Event().wait(0.1)
    while len(crew.living()) == 0:
        threading.Event().wait(0.1)
    os.kill(pid, signal.SIGSTOP)
    while crew.all_alive():
        crew.living()
        seen.append(len(crew))
        threading.Event().wait(0.1)

    assert seen == sorted(seen, reverse=True)
    assert set(seen) == {1, 0}
    (end,) = crew.bury(store)
    assert (end.silent, end.code, crew.deaths) == (True, -signal.SIGKILL, 1)
