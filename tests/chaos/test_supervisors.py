"""Two machines that share a PostgreSQL and nothing else; one loses its power in the middle of a run."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from sage_core.platform.store import JobStore
from tests.chaos.history import Verdict
from tests.chaos.ledger import Ledger
from tests.chaos.machines import Machine
from tests.chaos.processes import wait_for

ROWS = 12
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

[steps.{name}-total]
use = "chaos.total"
in = {{ done = "{name}.done" }}
"""
OUTPUTS = """
[outputs]
any = "any-total.total"
left = "left-total.total"
right = "right-total.total"
"""
NEEDS = {"any": "{ cpu = 0.1 }", "left": '{ labels = ["left"] }', "right": '{ labels = ["right"] }'}


@pytest.fixture
def machines(url: str, tmp_path: Path) -> Iterator[tuple[Machine, Machine]]:
    left, right = (Machine(tmp_path, name, url, lease=LEASE) for name in ("left", "right"))
    steps = [STEP.format(name=name, log=tmp_path / "log", needs=needs) for name, needs in NEEDS.items()]
    (left.folder / "workflow.toml").write_text(WORKFLOW.format(rows=ROWS) + "".join(steps) + OUTPUTS)
    yield left, right
    left.close()
    right.close()


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
    run = left.sage("invoke", "machines", "--no-spawn")["run_id"]
    left.serve()
    right.serve()
    with JobStore.open(url) as store:

        def at_work_on_its_own() -> bool:
            return {"any", "right"} <= {step for step, _, name, _ in worked(tmp_path) if name == "right"} and any(
                job.state == "running" and job.node == "right" for job in store.jobs(run)
            )

        wait_for(at_work_on_its_own, "both machines work")
        right.kill()
        since = time.monotonic()
        held = [job for job in store.jobs(run) if job.state == "running" and job.node == "right"]
        assert held, "it dies with a job in its hands"

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
        assert store.run(run).status == "succeeded", store.run(run).error
        left.leave()
        right.leave()
        report = left.sage("runs", "show", run)
        assert set(report["outputs"].values()) == {(1 << ROWS) - 1}, report["outputs"]
        rows = {(step, int(row)) for step, row, _, _ in worked(tmp_path)}
        assert rows == {(step, row) for step in NEEDS for row in range(ROWS)}
        assert {name for step, _, name, _ in worked(tmp_path) if step == "left"} == {"left"}
        assert {name for step, _, name, _ in worked(tmp_path) if step == "right"} == {"right"}
        ledger.settle(f"power cut of one of two machines ({kind})", 1, judge(store, run), [took])
