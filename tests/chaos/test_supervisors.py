"""Two machines that share a PostgreSQL and nothing else; one loses its power in the middle of a run."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from sage_core.platform.store import JobStore
from tests.chaos.history import Verdict
from tests.chaos.ledger import Ledger
from tests.chaos.machines import Machine
from tests.chaos.processes import wait_for, wait_until_stopped
from tests.chaos.server import Server

ROWS = 8
LEASE = 1.5
WORKFLOW = """
sage = 1
name = "machines"

[steps.rows]
use = "chaos.rows"
with = {{ n = {rows} }}
"""
#: A step that takes a while per row, every row a job of its own; `needs` is what it asks of a machine.
STEP = """
[steps.{name}]
use = "chaos.work"
in = {{ row = "rows.row" }}
with = {{ log = "{log}", step = "{name}", seconds = 0.1 }}
partition = 1
checkpoint = true
needs = {needs}

[steps.{name}_total]
use = "chaos.total"
in = {{ done = "{name}.done" }}
"""
NEEDS = {"any": "{ cpu = 0.1 }", "left": '{ labels = ["left"] }', "right": '{ labels = ["right"] }'}


@pytest.fixture
def machines(url: str, tmp_path: Path) -> Iterator[tuple[Machine, Machine]]:
    left, right = (Machine(tmp_path, name, url, lease=LEASE) for name in ("left", "right"))
    (left.folder / "workflow.toml").write_text(workflow(tmp_path, "any", "left", "right"))
    yield left, right
    left.close()
    right.close()


@pytest.fixture
def machine(url: str, tmp_path: Path) -> Iterator[Machine]:
    machine = Machine(tmp_path, "alone", url, lease=LEASE)
    (machine.folder / "workflow.toml").write_text(workflow(tmp_path, "any"))
    yield machine
    machine.close()


def workflow(folder: Path, *steps: str) -> str:
    """A workflow with some of the steps, each of which puts every row to work."""
    parts = [STEP.format(name=name, log=folder / "log", needs=NEEDS[name]) for name in steps]
    outputs = "".join(f'{name} = "{name}_total.total"\n' for name in steps)
    return WORKFLOW.format(rows=ROWS) + "".join(parts) + "[outputs]\n" + outputs


def worked(folder: Path) -> list[list[str]]:
    """Rows that were worked on: step, row, machine, process."""
    log = folder / "log"
    return [line.split() for line in log.read_text().splitlines()] if log.exists() else []


def judge(store: JobStore, run: str) -> Verdict:
    """Hold a run's jobs and attempts against one another."""
    jobs = store.jobs(run)
    done = [attempt for attempt in store.attempts(run) if attempt.outcome == "done"]
    fences = {job.id: job.fence for job in jobs if not job.reused}
    lost = [f"job {job.id} ({job.stage}/{job.part}) is {job.state}: {job.error}" for job in jobs if job.state != "done"]
    lost += [f"job {id} has no end in its history" for id in fences.keys() - {attempt.job_id for attempt in done}]
    doubled = [
        f"job {each.job_id} ended under fence {each.fence}" for each in done if fences[each.job_id] != each.fence
    ]
    if len(done) != len({attempt.job_id for attempt in done}):
        doubled.append("a job ended twice")
    return Verdict(lost, doubled)


@pytest.mark.parametrize("kind", ["postgres"])
def test_a_machine_that_loses_its_power(
    machines: tuple[Machine, Machine], url: str, kind: str, tmp_path: Path, ledger: Ledger
) -> None:
    left, right = machines
    left.sage("deploy", "workflow.toml")
    left.serve()
    right.serve()
    with JobStore.open(url) as store:
        wait_for(lambda: len(store.nodes()) == 2, "both machines are announced")
        run = left.sage("invoke", "machines", "--no-spawn")["run_id"]

        def holds_a_job() -> bool:
            jobs = store.jobs(run)
            held = any(job.state == "running" and job.node == "right" for job in jobs)
            return held and any(job.stage == "right" and job.state != "done" for job in jobs)

        def at_work() -> bool:
            if not (holds_a_job() and any(name == "right" for _, _, name, _ in worked(tmp_path))):
                return False
            right.send(signal.SIGSTOP)
            if holds_a_job():
                return True
            right.send(signal.SIGCONT)
            return False

        wait_for(at_work, "it has a job in its hands, and has done some")
        right.kill()
        since = time.monotonic()

        def all_but(*stages: str) -> Callable[[], bool]:
            return lambda: all(
                job.state == "done"
                for job in store.jobs(run)
                if not any(job.stage.startswith(stage) for stage in stages)
            )

        # What anybody can do is taken over; what only the dead machine could do waits for it.
        wait_for(all_but("right"), "the other machine takes over")
        took = time.monotonic() - since
        waiting = {job.state for job in store.jobs(run) if job.stage == "right" and job.state != "done"}
        assert waiting <= {"ready", "running"}
        assert waiting
        right.serve()
        wait_for(lambda: store.run(run).status != "running", "the run ends")
        right.leave()
        finish(left, store, run)
        rows = {(step, int(row)) for step, row, _, _ in worked(tmp_path)}
        assert rows == {(step, row) for step in NEEDS for row in range(ROWS)}
        assert {name for step, _, name, _ in worked(tmp_path) if step == "left"} == {"left"}
        assert {name for step, _, name, _ in worked(tmp_path) if step == "right"} == {"right"}
        ledger.settle(f"power cut of one of two machines ({kind})", 1, judge(store, run), [took])


@pytest.mark.parametrize("kind", ["postgres"])
def test_a_supervisor_outlasts_a_server_that_restarts(
    machine: Machine, url: str, kind: str, server: Server, tmp_path: Path, ledger: Ledger
) -> None:
    machine.sage("deploy", "workflow.toml")
    machine.serve()
    with JobStore.open(url) as store:
        wait_for(store.nodes, "the machine is announced")
        run = machine.sage("invoke", "machines", "--no-spawn")["run_id"]
    times = []
    for count in (2, 4):
        wait_for(lambda count=count: len(worked(tmp_path)) >= count, "some rows are worked on")  # type: ignore[misc]
        server.stop("immediate")
        server.start()
        since, before = time.monotonic(), len(worked(tmp_path))
        wait_for(lambda before=before: len(worked(tmp_path)) > before, "work goes on")  # type: ignore[misc]
        times.append(time.monotonic() - since)
    with JobStore.open(url) as store:
        wait_for(lambda: store.run(run).status != "running", "the run ends")
        finish(machine, store, run)
        ledger.settle(f"crash of the server under a supervisor ({kind})", 2, judge(store, run), times)


@pytest.mark.parametrize("kind", ["postgres"])
def test_a_supervisor_that_may_leave_does_so_when_the_server_does_not_come_back(
    machine: Machine, url: str, kind: str, server: Server
) -> None:
    machine.sage("deploy", "workflow.toml")
    machine.serve("--until-idle", "1s")
    with JobStore.open(url) as store:
        machine.sage("invoke", "machines", "--no-spawn")
        wait_for(lambda: [w for w in store.live_workers() if w.kind == "worker"], "a worker is at work")
    server.stop("immediate")
    try:
        said = machine.left(code=1)
    finally:
        server.start()
    assert "node alone: left, because the job store stays away\n" in said
    assert "Error: store postgresql://" in said
    assert "cannot be reached" in said


def test_a_supervisor_replaces_workers_that_are_killed(
    machine: Machine, url: str, kind: str, tmp_path: Path, ledger: Ledger
) -> None:
    machine.sage("deploy", "workflow.toml")
    machine.serve()
    with JobStore.open(url) as store:
        wait_for(store.nodes, "the machine is announced")
        run = machine.sage("invoke", "machines", "--no-spawn")["run_id"]
        times, victims = [], set()
        for count in (2, 4):
            wait_for(lambda count=count: len(worked(tmp_path)) >= count, "some rows are worked on")  # type: ignore[misc]
            victim = int(worked(tmp_path)[-1][3])
            os.kill(victim, signal.SIGKILL)
            victims.add(str(victim))
            since = time.monotonic()
            wait_for(lambda: worked(tmp_path)[-1][3] not in victims, "another worker goes on")
            times.append(time.monotonic() - since)
        wait_for(lambda: store.run(run).status != "running", "the run ends")
        finish(machine, store, run)
        ledger.settle(f"SIGKILL of a worker under a supervisor ({kind})", 2, judge(store, run), times)


def test_a_supervisor_replaces_a_worker_that_is_stopped(
    machine: Machine, url: str, kind: str, tmp_path: Path, ledger: Ledger
) -> None:
    """Its heartbeats come from the supervisor, which must not speak for one that gives no sign of life."""
    machine.sage("deploy", "workflow.toml")
    machine.serve()
    with JobStore.open(url) as store:
        wait_for(store.nodes, "the machine is announced")
        run = machine.sage("invoke", "machines", "--no-spawn")["run_id"]

        def held() -> tuple[int, int, int] | None:
            workers = {worker.id: worker.pid for worker in store.live_workers() if worker.kind == "worker"}
            found = [job for job in store.jobs(run) if job.state == "running" and job.stage == "any"]
            return next(((workers[job.worker], job.id, job.fence) for job in found if job.worker in workers), None)

        def stopped() -> tuple[int, int, int] | None:
            if (before := held()) is None:
                return None
            os.kill(before[0], signal.SIGSTOP)
            wait_until_stopped(before[0])
            if held() == before:
                return before
            os.kill(before[0], signal.SIGCONT)
            return None

        zombie, job, fence = wait_for(stopped, "a worker is stopped that holds a job")
        since = time.monotonic()
        wait_for(lambda: store.job(job).state == "done", "another worker does it")
        took = time.monotonic() - since
        assert took > LEASE / 2, "its lease is respected"
        assert took < 4 / 3 * LEASE + 8, "the supervisor did not renew it"
        assert store.job(job).fence == fence + 1
        before = store.job(job)
        with contextlib.suppress(ProcessLookupError):
            os.kill(zombie, signal.SIGCONT)
        wait_for(lambda: store.run(run).status != "running", "the run ends")
        assert store.job(job) == before
        assert [each.outcome for each in store.attempts(run) if each.job_id == job] == ["expired", "done"]
        finish(machine, store, run)
        ledger.settle(f"SIGSTOP of a worker under a supervisor ({kind})", 1, judge(store, run), [took])


def finish(machine: Machine, store: JobStore, run: str) -> None:
    """See that a run brought what it must, and that its supervisor leaves."""
    assert store.run(run).status == "succeeded", store.run(run).error
    machine.leave()
    assert set(machine.sage("runs", "show", run)["outputs"].values()) == {(1 << ROWS) - 1}
