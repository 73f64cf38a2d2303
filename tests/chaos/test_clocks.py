"""Clocks that are an hour off, and a database's clock that jumps: who owns a job never depends on a worker's clock."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.chaos.clock import Clock, clock_url
from tests.chaos.history import History
from tests.chaos.ledger import Ledger
from tests.chaos.load import Load
from tests.chaos.processes import wait_for
from tests.chaos.server import Server

HOUR = 3_600
SHIFTED = Path(__file__).parent / "shifted"


def off_by(seconds: int) -> dict[str, str]:
    """The environment of a process whose Python is wrong about the time."""
    return {"PYTHONPATH": os.pathsep.join([str(SHIFTED), *sys.path]), "SAGE_CHAOS_SHIFT": str(seconds)}


@pytest.mark.parametrize("seconds_off", [HOUR, -HOUR])
def test_a_shifted_process_is_really_shifted(seconds_off: int) -> None:
    said = subprocess.run(
        [sys.executable, "-c", "import time; print(time.time(), time.time_ns())"],
        env={**os.environ, **off_by(seconds_off)},
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split()
    assert abs(float(said[0]) - time.time() - seconds_off) < 30
    assert abs(int(said[1]) / 1e9 - time.time() - seconds_off) < 30


def test_workers_whose_clocks_are_an_hour_off(
    url: str, kind: str, tmp_path: Path, history: History, chance: random.Random, seconds: float, ledger: Ledger
) -> None:
    """One worker's Python is an hour ahead, the other's an hour behind; one after the other is killed.

    On SQLite the clock of the database is the machine's, read by the library itself: it is not shifted here.
    """
    with Load(url, history, tmp_path, chance, environs=[off_by(HOUR), off_by(-HOUR)]) as load:
        for _ in load.rounds(seconds):
            with load.fault():
                load.fire(next(iter(load.workers)))
        ledger.settle(f"clocks of workers an hour off, and a SIGKILL ({kind})", load.faults, load.finish(), load.times)


@pytest.fixture
def clock(tmp_path: Path) -> Iterator[Clock]:
    clock = Clock(tmp_path / "clock")
    yield clock
    clock.close()


@pytest.fixture
def clocked(kind: str, tmp_path: Path, request: pytest.FixtureRequest) -> str:
    """A store whose database takes the time from `clock`."""
    if kind == "sqlite":
        return f"sqlite:///{tmp_path}/sage.db"
    server: Server = request.getfixturevalue("server")
    return clock_url(server, tmp_path)


def test_the_clock_of_the_database_jumps_ahead(
    clocked: str,
    clock: Clock,
    kind: str,
    tmp_path: Path,
    history: History,
    chance: random.Random,
    seconds: float,
    ledger: Ledger,
) -> None:
    """Every lease is over at once, so living workers lose their jobs to one another: safe, and no more than that."""
    with Load(clocked, history, tmp_path, chance, clock=tmp_path / "clock") as load:
        before = load.store.now()
        for number in load.rounds(seconds, least=4):
            with load.fault():
                clock.set(load.store, (number + 1) * HOUR)
        assert load.store.now() - before > 4 * HOUR * 1000
        ledger.settle(f"clock of the database an hour ahead ({kind})", load.faults, load.finish(), load.times)


def test_the_clock_of_the_database_jumps_back(
    clocked: str, clock: Clock, kind: str, tmp_path: Path, history: History, chance: random.Random, ledger: Ledger
) -> None:
    """What was due is not due any more: it waits until the clock has caught up, and is done then."""
    with Load(clocked, history, tmp_path, chance, clock=tmp_path / "clock") as load:
        load.progress()
        with load.fault():
            clock.set(load.store, -HOUR)
            load.feed()

            def nothing_is_due() -> bool:
                due = load.store.next_due()
                return due is not None and due > HOUR * 1000 / 2

            # What was inserted after the jump is due, and is done.
            wait_for(nothing_is_due, "all that is left waits for the clock")
            waiting = sum(count for run in load.plan for count in load.open_jobs(run))
            assert waiting > 0
            clock.set(load.store, 0)
        ledger.settle(f"clock of the database an hour back ({kind})", load.faults, load.finish(), load.times)
