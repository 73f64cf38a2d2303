"""Processes that tick at once, some of which are killed at any statement: each fire time starts one run."""

from __future__ import annotations

import random
import signal
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from sage_core.builtins import default_host
from sage_core.kernel.dataflow import check as workflows
from sage_core.kernel.runtime.deployments import deploy
from sage_core.kernel.runtime.launch import Project, find_project
from sage_core.platform.records import FireRow, NewRun
from tests.chaos.history import Verdict
from tests.chaos.ledger import Ledger
from tests.chaos.processes import Nest
from tests.chaos.ticker import PLUGINS

WORKFLOW = """
sage = 1
name = "nightly"

[steps.rows]
use = "chaos.rows"
with = { n = 3 }

[[triggers.cron]]
schedule = "*/5 * * * *"
overlap = "queue"
catchup = "all"
"""
STEP = 5 * 60_000


class Calendar:
    """A project with deployments whose schedules are overdue, and processes that tick."""

    def __init__(self, project: Project, nest: Nest) -> None:
        self.project = project
        self._nest = nest
        self._graph = workflows.load(project.folder / "workflow.toml", default_host(PLUGINS))
        self._due: dict[str, list[int]] = {}

    def overdue(self, name: str, times: int) -> None:
        """Deploy under a name, as if nothing had ticked for so many fire times."""
        deployed = deploy(self._graph, {}, host=default_host(PLUGINS), project=self.project, name=name)
        [schedule] = deployed.schedules
        with self.project.open_store() as store, store.transaction() as tx:
            now = tx.now()
            first = now // STEP * STEP - (times - 1) * STEP
            tx.move_schedule(schedule.id, first)
        self._due[schedule.id] = [first + n * STEP for n in range(times)]

    def begin(self, at: int = 0) -> None:
        """Start a tick that dies before statement `at`; 0 lets it live."""
        self._nest.begin("tick", folder=str(self.project.folder), at=at)

    def tick(self, at: int = 0) -> dict[str, Any]:
        """Tick to the end."""
        return self._nest.do("tick", folder=str(self.project.folder), at=at)

    def verdict(self) -> Verdict:
        """Hold the fire times and their runs against what was due."""
        with self.project.open_store() as store:
            fires: list[FireRow] = store.fires(limit=10_000)
            runs = Counter(run.id for run in store.runs(10_000))
            jobs = {run: len(store.jobs(run)) for run in runs}
        told = Counter((fire.schedule, fire.fire_at) for fire in fires if fire.outcome == "fired")
        wanted = Counter((id, at) for id, moments in self._due.items() for at in moments)
        named = Counter(fire.run_id or "" for fire in fires)
        lost = [f"{id} did not fire at {at}" for id, at in wanted - told]
        lost += [f"run {run} of a fire time is not there" for run in named - runs]
        lost += [f"run {run} has {count} jobs" for run, count in jobs.items() if count != 1]
        doubled = [f"{id} fired twice at {at}" for id, at in (told - wanted) if (id, at) in wanted]
        doubled += [f"run {run} belongs to no fire time, or to two" for run in (runs - named) + (named - runs)]
        return Verdict(lost, doubled)


@pytest.fixture
def calendar(url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Calendar]:
    (tmp_path / "workflow.toml").write_text(WORKFLOW)
    (tmp_path / "sage.toml").write_text(f'[store]\nurl = "{url}"\n')
    monkeypatch.setenv("SAGE_HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    with Nest("tests.chaos.ticker") as nest:
        yield Calendar(find_project(tmp_path), nest)


def test_a_run_too_many_and_a_time_too_few_are_found(calendar: Calendar) -> None:
    calendar.overdue("one", 1)
    assert [text.partition(" ")[0] for text in calendar.verdict().lost] == ["one/1"]
    calendar.tick()
    assert calendar.verdict() == ([], [])
    with calendar.project.open_store() as store, store.transaction() as tx:
        tx.insert_run(NewRun(id="stray", workflow="nightly"))
    assert calendar.verdict().duplicated == ["run stray belongs to no fire time, or to two"]


def test_a_tick_killed_at_a_statement(
    calendar: Calendar, kind: str, chance: random.Random, pytestconfig: pytest.Config, ledger: Ledger
) -> None:
    calendar.overdue("alive", 2)
    alive = calendar.tick()
    assert (alive["code"], len(alive["fired"])) == (0, 2)
    last = alive["counted"] + 1
    assert last > 10
    times = []
    # The short form takes a third of the boundaries, drawn by the seed, and the ends.
    points = (
        range(1, last + 1)
        if pytestconfig.getoption("--long")
        else sorted({1, last, *chance.sample(range(2, last), last // 3)})
    )
    for at in points:
        calendar.overdue(f"t{at}", 2)
        assert calendar.tick(at)["code"] == -signal.SIGKILL
        since = time.monotonic()
        assert calendar.tick()["code"] == 0
        times.append(time.monotonic() - since)
    ledger.settle(f"SIGKILL of a tick at a statement ({kind})", len(points), calendar.verdict(), times)


def test_processes_that_tick_at_once(calendar: Calendar, kind: str, ledger: Ledger) -> None:
    with Nest("tests.chaos.ticker") as second, Nest("tests.chaos.ticker") as third:
        for number in range(3):
            calendar.overdue(f"crowded-{number}", 12)
        for nest, at in ((second, 0), (third, 9)):
            nest.begin("tick", folder=str(calendar.project.folder), at=at)
        assert calendar.tick()["code"] == 0
        assert second.end()["code"] == 0
        assert third.end()["code"] in (0, -signal.SIGKILL)
    assert calendar.tick()["code"] == 0
    ledger.settle(f"three ticks at once, one killed ({kind})", 1, calendar.verdict())
