"""Tests of sage_core.cli.replay: equal decisions, different ones, and files that are not there."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from tests.unit.cli.conftest import Cli
from tests.unit.kernel.control_plane import recorded


@pytest.fixture
def logs(cli: Cli) -> Path:
    folder = cli.home / "project" / "logs"
    folder.mkdir(parents=True)
    asyncio.run(recorded.record(folder, "default"))
    return folder


def test_a_recording_agrees_with_the_projects_own_log(cli: Cli, logs: Path) -> None:
    said = cli("replay", logs / "recording.jsonl")
    assert (said.code, said.err) == (0, "")
    lines = len((logs / "decisions.jsonl").read_text().splitlines())
    assert said.out.splitlines()[0].endswith(f"60 requests: {lines} decisions compared")
    assert said.out.endswith("\nall equal\n")
    found = cli("replay", logs / "recording.jsonl", "--json").json
    assert (found["same"], found["requests"], found["difference"]) == (True, 60, None)
    assert found["compared"] == found["equal"] == lines


def test_the_first_difference_is_shown_and_ends_in_1(cli: Cli, logs: Path) -> None:
    log = logs / "decisions.jsonl"
    other = cli.cwd / "other.jsonl"
    other.write_text(log.read_text().replace('"outcome":"done"', '"outcome":"failed"'))
    said = cli("replay", logs / "recording.jsonl", "--decisions", other)
    assert said.code == 1
    assert "differ, 0 are not in the log; the first:\n  request r" in said.out
    assert said.out.endswith("outcome\n    log      'failed'\n    replayed 'done'\n")
    empty = cli.cwd / "empty.jsonl"
    empty.write_text("")
    said = cli("replay", logs / "recording.jsonl", "--decisions", empty)
    assert said.code == 1
    assert said.out.endswith("line 1 of its record: was decided again, and is in no log\n")


def test_a_policy_that_is_not_installed_here_is_named(cli: Cli, logs: Path) -> None:
    recording = cli.cwd / "changed.jsonl"
    recording.write_text((logs / "recording.jsonl").read_text().replace('"requests":"fifo"', '"requests":"nope"', 1))
    said = cli("replay", recording)
    assert said.code == 2
    assert said.err.startswith("Error: No scheduler is named 'nope'.")


def test_files_that_are_not_there_are_named(cli: Cli, tmp_path: Path) -> None:
    said = cli("replay", "gone")
    assert (said.code, said.err.splitlines()[0]) == (2, "Error: there is no recording gone")
    (cli.cwd / "gone").write_text("")
    said = cli("replay", "gone")
    assert said.code == 2
    assert said.err.startswith(f"Error: there is no decision log {cli.home}/project/logs/decisions.jsonl\n  help: ")
    (cli.cwd / "log").write_text("")
    said = cli("replay", "gone", "--decisions", "log")
    assert said.code == 2
    assert said.err.startswith("Error: gone, line 1: it is no header of a recording")


def test_a_recording_of_another_version_is_noted(cli: Cli, logs: Path) -> None:
    file = logs / "recording.jsonl"
    header, _, rest = file.read_text().partition("\n")
    file.write_text(header.replace('"sage":"', '"sage":"0.') + "\n" + rest)
    said = cli("replay", file)
    assert (said.code, said.err.split()[:3]) == (0, ["recorded", "by", "SAGE"])
