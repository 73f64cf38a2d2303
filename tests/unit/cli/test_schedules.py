"""Tests of sage_core.cli.schedules: the listing, the switch, backfills, and what is written to have ticks called."""

from __future__ import annotations

import re
import stat
from pathlib import Path

import pytest

from tests.unit.cli.conftest import Cli
from tests.unit.cli.test_deploy import STEPS
from tests.unit.kernel.runtime.schedule_operators import CRON, PLUGINS


@pytest.fixture
def cli(cli: Cli) -> Cli:
    cli.plugins |= {"triggers": PLUGINS["triggers"]}
    return cli


def test_an_empty_list_says_what_to_do(cli: Cli) -> None:
    said = cli("schedules", "list")
    help = "give a workflow a [[triggers.cron]], then: sage deploy WORKFLOW"
    assert (said.code, said.out, said.err) == (0, "", f"No schedules\n  help: {help}\n")
    assert cli("schedules", "list", "--json").json == []


def test_schedules_are_listed_paused_and_resumed(cli: Cli) -> None:
    cli("deploy", cli.write(f'{STEPS}{CRON}timezone = "Europe/Berlin"\n{CRON}name = "late"\n'))
    first, late = cli("schedules", "list", "--json").json
    assert (first["id"], first["timezone"], first["overlap"], first["catchup"]) == (
        "w/1",
        "Europe/Berlin",
        "skip",
        "none",
    )
    assert (late["id"], late["paused"], late["outcome"], late["run_id"]) == ("w/late", False, "", None)

    assert cli("schedules", "pause", "w/late").out == "paused w/late\n"
    assert [row["paused"] for row in cli("schedules", "list", "--json").json] == [False, True]
    assert re.search(r"^w/late .* \(paused\) *$", cli("schedules", "list").out, re.MULTILINE)
    assert cli("schedules", "pause", "w", "--json").json == {"paused": ["w/1", "w/late"]}
    assert re.fullmatch(r"(schedule w/\w+: \d{4}-\S+Z\n){2}", cli("schedules", "resume", "w").out)
    assert list(cli("schedules", "resume", "w", "--json").json["resumed"]) == ["w/1", "w/late"]
    said = cli("schedules", "pause", "w/lat")
    assert (said.code, said.err.split(" They")[0]) == (
        2,
        "Error: No schedule is named 'w/lat'. Did you mean 'w/late'? Known: w/1, w/late.",
    )


def test_a_backfill_fires_what_lies_between(cli: Cli) -> None:
    cli("deploy", cli.write(STEPS + CRON))
    between = ["schedules", "backfill", "w/1", "--from", "2026-01-01T06:00", "--to", "2026-01-01T06:10", "--no-spawn"]
    fired = cli(*between, "--json").json
    assert [each["fire_at"] for each in fired] == [f"2026-01-01T06:{minute}:00.000Z" for minute in ("00", "05", "10")]
    again = cli(*between)
    assert (again.code, again.out, again.err) == (0, "", "0 fire times\n")
    assert len(cli("runs", "list", "--json").json) == 3


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--from", "yesterday"], "'yesterday' is not a time such as 2026-11-01"),
        (["--from", "2026-01-01", "--to", "3026-01-01"], "the end of a backfill lies in the future"),
        ([], "Missing option '--from'"),
    ],
)
def test_what_cannot_be_backfilled_is_explained(cli: Cli, arguments: list[str], message: str) -> None:
    cli("deploy", cli.write(STEPS + CRON))
    said = cli("schedules", "backfill", "w/1", *arguments, "--no-spawn")
    assert said.code == 2
    assert message in said.err


def test_a_backfill_without_its_operators_fails(cli: Cli) -> None:
    cli("deploy", cli.write(STEPS + CRON))
    del cli.plugins["run"]
    said = cli("schedules", "backfill", "w/1", "--from", "2026-01-01", "--to", "2026-01-01T00:05", "--no-spawn")
    assert said.code == 1
    assert said.out.count("failed") == 2
    assert said.err.count("Error: No operator is named 't.lines'") == 1


# ---------------------------------------------------------------- install

#: Commands that keep what they are told in files beside them.
CRONTAB = """#!/bin/sh
tab="$(dirname "$0")/tab"
if [ "$1" = -l ]; then [ -f "$tab" ] && exec cat "$tab"; echo "no crontab" >&2; exit 1; fi
cat > "$tab"
"""
SYSTEMCTL = """#!/bin/sh
echo "$@" >> "$(dirname "$0")/calls"
"""


@pytest.fixture
def commands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of commands that is all there is on the path, besides a shell's own."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for name in ("sh", "cat", "dirname"):
        (folder / name).symlink_to(f"/bin/{name}" if Path(f"/bin/{name}").exists() else f"/usr/bin/{name}")
    monkeypatch.setenv("PATH", str(folder))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    return folder


def offer(commands: Path, name: str, text: str) -> None:
    (commands / name).write_text(text)
    (commands / name).chmod(stat.S_IRWXU)


def test_without_systemd_a_line_is_added_to_the_crontab(cli: Cli, commands: Path) -> None:
    offer(commands, "crontab", CRONTAB)
    shown = cli("schedules", "install", "--print")
    line = shown.out.removeprefix("# crontab\n").strip()
    command = rf"cd {cli.cwd} && SAGE_HOME={cli.home} \S+ -m sage_core.cli tick"
    assert re.fullmatch(rf"(\* ){{5}}{command} >/dev/null 2>&1 # sage-tick-\w+", line)
    assert not (commands / "tab").exists()

    (commands / "tab").write_text("5 5 * * * others\n")
    assert cli("schedules", "install").out == f"added to the crontab: {line}\n"
    assert (commands / "tab").read_text() == f"5 5 * * * others\n{line}\n"
    assert cli("schedules", "install").out == f"the crontab has this line already: {line}\n"

    other = cli("schedules", "install", "--every", "5m")
    assert (other.code, other.err) == (
        2,
        "Error: the crontab has another line for this folder\n  help: look at it with crontab -l, then: --replace\n",
    )
    assert cli("schedules", "install", "--every", "5m", "--replace").code == 0
    kept = (commands / "tab").read_text().splitlines()
    assert [each[:11] for each in kept] == ["5 5 * * * o", "*/5 * * * *"]


def test_with_systemd_a_timer_is_written_and_started(cli: Cli, commands: Path, tmp_path: Path) -> None:
    offer(commands, "systemctl", SYSTEMCTL)
    shown = cli("schedules", "install", "--print", "--json").json
    assert shown["installed"] is False
    assert not (tmp_path / "config").exists()
    assert cli("schedules", "install", "--every", "90s").code == 0
    service, timer = sorted((tmp_path / "config" / "systemd" / "user").iterdir())
    assert f"WorkingDirectory={cli.cwd}\n" in service.read_text()
    assert f'Environment="SAGE_HOME={cli.home}"\n' in service.read_text()
    assert "OnUnitActiveSec=90s\n" in timer.read_text()
    calls = (commands / "calls").read_text().splitlines()
    assert calls[-2:] == ["--user daemon-reload", f"--user enable --now {timer.name}"]

    refused = cli("schedules", "install")
    assert refused.code == 2
    assert f"{timer} exists and says something else\n  help: look at it, then: --replace" in refused.err
    assert "OnUnitActiveSec=90s\n" in timer.read_text()
    assert cli("schedules", "install", "--replace").code == 0
    assert "OnUnitActiveSec=60s\n" in timer.read_text()


def test_with_neither_it_says_what_else_can_be_done(cli: Cli, commands: Path) -> None:
    said = cli("schedules", "install")
    assert said.code == 2
    assert said.err.startswith("Error: crontab cannot be run (No such file or directory), and there is no systemd")
    assert cli("schedules", "install", "--print").code == 0


def test_how_often_is_judged(cli: Cli, commands: Path) -> None:
    assert "a crontab cannot say every so often" in cli("schedules", "install", "--every", "7m", "--print").err
    assert "--every is at least 1s" in cli("schedules", "install", "--every", "10ms").err
    seldom = cli("schedules", "install", "--every", "1h", "--print")
    assert seldom.err.startswith(
        'warning: schedules with catchup = "none" miss times that are dealt with more than 5 min'
    )
    assert "\n0 * * * * cd " in seldom.out


def test_one_timer_serves_all_folders_of_a_project(cli: Cli, commands: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (cli.cwd / "sage.toml").write_text("")
    (cli.cwd / "inner").mkdir()
    outer = cli("schedules", "install", "--print").out
    monkeypatch.chdir(cli.cwd / "inner")
    assert cli("schedules", "install", "--print").out == outer


@pytest.mark.parametrize(
    "asked", [["schedules", "list"], ["nodes"], ["runs", "list"], ["jobs", "list"], ["queues", "list"]]
)
def test_looking_makes_no_project(cli: Cli, asked: list[str]) -> None:
    said = cli(*asked, "--json")
    assert (said.code, said.json) == (0, [])
    assert not (cli.home / "project" / "sage.db").exists()


@pytest.mark.parametrize("asked", [["invoke", "w"], ["schedules", "pause", "w"], ["schedules", "resume", "w"]])
def test_asking_for_what_a_new_project_lacks_makes_none(cli: Cli, asked: list[str]) -> None:
    said = cli(*asked)
    assert (said.code, said.out) == (2, "")
    assert "is named 'w': there are no runs in" in said.err
    assert not (cli.home / "project" / "sage.db").exists()
