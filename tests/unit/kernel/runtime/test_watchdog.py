"""Tests of sage_core.kernel.runtime.watchdog: attempts that lost their job are stopped, whatever they are at."""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path

import pytest

from sage_core.kernel.runtime.crew import Crew
from sage_core.kernel.runtime.watchdog import Watchdog
from sage_core.platform.store import JobStore
from sage_core.testing.flows import Flows
from tests.unit.kernel.runtime import drive_operators
from tests.unit.kernel.runtime.queued import enqueue, numbers


@pytest.fixture
def flows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Flows:
    monkeypatch.chdir(tmp_path)
    return Flows(tmp_path, {"driven": drive_operators})


def crew_of(flows: Flows) -> Crew:
    project = flows.project
    return Crew("--queue=default", url=project.url, folder=flows.home, host=flows.host, paths=project.paths, lease=30.0)


def wait_until(store: JobStore, run_id: str, state: str, stage: str = "act") -> None:
    give_up = time.monotonic() + 20
    while not any((job.stage, job.state) == (stage, state) for job in store.jobs(run_id)):
        assert time.monotonic() < give_up, store.jobs(run_id)
        threading.Event().wait(0.01)


def test_a_cancelled_run_is_dropped_and_its_worker_takes_the_next(flows: Flows) -> None:
    hanging = enqueue(flows, numbers("d.hang", flag=str(flows.home / "flag")))
    crew = crew_of(flows)
    with flows.open_store() as store:
        crew.fill(1)
        (worker,) = crew.workers()
        wait_until(store, hanging, "running")
        store.cancel_run(hanging)
        following = enqueue(flows, numbers(n=6))
        wait_until(store, following, "done")
        assert crew.workers() == [worker]
        assert crew.all_alive(), "it was stopped, not its process"
        crew.stop(store)
        assert {attempt.outcome for attempt in store.attempts(hanging)} == {"done", "cancelled"}


def test_a_worker_whose_operator_does_not_stop_leaves_and_is_no_death(flows: Flows) -> None:
    stuck = enqueue(flows, numbers("d.block", flag=str(flows.home / "flag")))
    crew = crew_of(flows)
    with flows.open_store() as store:
        crew.fill(1)
        wait_until(store, stuck, "running")
        store.cancel_run(stuck)
        (pid,) = crew.pids()
        os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
        (end,) = crew.bury(store)
    assert (end.code, crew.deaths) == (0, 0)


def test_it_ends_its_thread(flows: Flows) -> None:
    watchdog = Watchdog(flows.project.url)
    watchdog.close()
    assert "sage-watchdog" not in {thread.name for thread in threading.enumerate()}
