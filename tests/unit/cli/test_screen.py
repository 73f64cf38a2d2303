"""Tests of sage_core.cli.screen: on a real terminal, and where there is none."""

from __future__ import annotations

import contextlib
import os
import pty
import re
from collections.abc import Iterator
from typing import Any

import pytest

from sage_core.cli.screen import Screen, plan_line
from sage_core.kernel.runtime.preview import Decision
from sage_core.kernel.runtime.progress import Planned, Progress, Stopping

STEPS = {
    "files": Decision(verb="always", reason="", jobs=1),
    "ask": Decision(verb="reuse", reason="", jobs=1, reused=1),
    "parse": Decision(verb="run", reason="", jobs=16, reused=2),
    "chunk": Decision(verb="run", reason="", jobs=16, reused=2),
    "title": Decision(verb="run", reason="", jobs=1),
    "index": Decision(verb="deferred", reason=""),
}


def progress(**fields: Any) -> Progress:
    values: dict[str, Any] = {"counts": {"done": 3, "ready": 5}, "parts_done": 2, "parts_known": 8, "rows_computed": 40}
    return Progress(**{**values, "running": ("parse",), "tokens": 0, "seconds": 2.0, **fields})


class Terminal:
    """A terminal, which is stderr inside ``with terminal:``."""

    def __init__(self) -> None:
        self._controller, device = pty.openpty()
        os.set_blocking(self._controller, False)
        self._stream = open(device, "w", encoding="utf-8")  # noqa: SIM115 - closed by `close`
        self._redirect = contextlib.redirect_stderr(self._stream)

    def __enter__(self) -> None:
        self._redirect.__enter__()

    def __exit__(self, *error: object) -> None:
        self._redirect.__exit__(None, None, None)

    def shown(self) -> str:
        """What it has shown, without colours and cursor movements."""
        self._stream.flush()
        found = b""
        with contextlib.suppress(BlockingIOError):
            while True:
                found += os.read(self._controller, 65536)
        return re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", found.decode()).replace("\r", "\n")

    def close(self) -> None:
        self._stream.close()
        os.close(self._controller)


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> Iterator[Terminal]:
    monkeypatch.delenv("CI", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "160")
    terminal = Terminal()
    yield terminal
    terminal.close()


def test_the_plan_is_one_line() -> None:
    assert plan_line(STEPS) == "reuse ask; run 14 of 16 partitions of parse, chunk; run title; then index"


def test_a_terminal_shows_the_plan_and_how_far_the_run_is(terminal: Terminal) -> None:
    with terminal, Screen("w", as_json=False, patience=0) as screen:
        screen.watch(Planned(workers=2, steps=STEPS))
        screen.watch(progress())
        screen.watch(progress(tokens=10, seconds=4.0))
        screen.watch(progress(tokens=30, seconds=6.0, running=("parse", "say")))
        assert screen.seconds >= 0
    shown = terminal.shown()
    assert (
        "plan: reuse ask; run 14 of 16 partitions of parse, chunk; run title; then index (2 worker processes)" in shown
    )
    assert "2/8 partitions · 20.0 rows/s · parse" in shown
    assert "2/8 partitions · 6.7 rows/s · 10.0 tokens/s · parse, say" in shown
    assert "ETA" in shown


def test_a_run_of_single_jobs_counts_those(terminal: Terminal) -> None:
    with terminal, Screen("w", as_json=False, patience=0) as screen:
        screen.watch(progress(parts_done=0, parts_known=1, rows_computed=0))
    assert "3/8 jobs · parse" in terminal.shown()


def test_a_short_run_draws_nothing(terminal: Terminal) -> None:
    with terminal, Screen("w", as_json=False, patience=60) as screen:
        screen.watch(progress())
    assert terminal.shown() == ""


@pytest.mark.parametrize("setting", ["json", "CI", "TERM"])
def test_nothing_moves_where_it_would_be_in_the_way(
    terminal: Terminal, monkeypatch: pytest.MonkeyPatch, setting: str
) -> None:
    if setting != "json":
        monkeypatch.setenv(setting, "1" if setting == "CI" else "dumb")
    with terminal, Screen("w", as_json=setting == "json", patience=0) as screen:
        screen.watch(Planned(workers=2, steps=STEPS))
        screen.watch(progress())
    assert terminal.shown() == ""


def test_without_a_terminal_only_warnings_and_the_stop_are_said(capfd: pytest.CaptureFixture[str]) -> None:
    with Screen("w", as_json=False, warnings=["careful"], patience=0) as screen:
        screen.watch(Planned(workers=2, steps=STEPS))
        screen.watch(progress())
        screen.watch(Stopping(run_id="r1", at_once=False))
        screen.watch(Stopping(run_id="r1", at_once=True))
    out, err = capfd.readouterr()
    assert out == ""
    assert err == (
        "warning: careful\n"
        "stopping: work in progress is given back; press Ctrl-C again to stop at once\n"
        "stopped at once; finished work is kept\n  help: sage runs resume r1\n"
    )
