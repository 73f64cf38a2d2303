"""Tests of sage_core.cli.timer: odd folders come through; what is installed is tested with `sage schedules install`."""

from __future__ import annotations

import shlex
import subprocess
from pathlib import Path

import pytest

from sage_core.cli.timer import CrontabLine, SystemdTimer, has_systemd
from sage_core.common.errors import UsageError

ODD = Path('/srv/50% of $HOME\'s "notes"')


def test_a_unit_quotes_what_systemd_would_read_otherwise(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SAGE_HOME", str(ODD))
    service, timer = SystemdTimer(ODD, 60).files().values()
    assert 'WorkingDirectory=/srv/50%% of $HOME\'s "notes"\n' in service
    assert 'Environment="SAGE_HOME=/srv/50%% of $HOME\'s \\"notes\\""\n' in service
    assert "Type=oneshot\nKillMode=process\n" in service
    assert 'ExecStart="' in service
    assert '"-m" "sage_core.cli" "tick"\n' in service
    assert "OnUnitActiveSec=60s\nAccuracySec=1s\n\n[Install]\nWantedBy=timers.target\n" in timer


def test_units_of_two_folders_do_not_meet() -> None:
    first, second = SystemdTimer(Path("/a"), 60), SystemdTimer(Path("/b"), 60)
    assert first.name != second.name
    assert not first.files().keys() & second.files().keys()


def test_a_crontab_line_survives_cron_and_the_shell(sage_home: Path) -> None:
    line = CrontabLine(ODD, 60).line
    assert line.startswith("* * * * * cd ")
    assert "50\\% of" in line
    # What cron hands to the shell, once it has read its own quoting.
    words = shlex.split(line.removeprefix("* * * * * ").replace("\\%", "%").partition(" >")[0])
    assert words[:3] == ["cd", str(ODD), "&&"]
    assert words[3] == f"SAGE_HOME={sage_home}"
    assert words[-3:] == ["-m", "sage_core.cli", "tick"]


def test_a_crontab_line_ticks(tmp_path: Path, sage_home: Path) -> None:
    command = CrontabLine(tmp_path, 60).line.removeprefix("* * * * * ").replace("\\%", "%")
    done = subprocess.run(["/bin/sh", "-c", command], check=False)
    assert done.returncode == 0
    assert (sage_home / "project" / "sage.db").exists()


@pytest.mark.parametrize(
    ("seconds", "fields"),
    [(60, "* * * * *"), (300, "*/5 * * * *"), (3600, "0 * * * *"), (21_600, "0 */6 * * *"), (86_400, "0 0 * * *")],
)
def test_how_often_a_crontab_says(seconds: int, fields: str) -> None:
    assert CrontabLine(Path("/a"), seconds).line.startswith(f"{fields} cd /a && ")


@pytest.mark.parametrize("seconds", [1, 90, 420, 5 * 3600, 7 * 86_400])
def test_what_a_crontab_cannot_say(seconds: int) -> None:
    with pytest.raises(UsageError, match="a crontab cannot say every so often\n  help: use --every 1m, 5m"):
        CrontabLine(Path("/a"), seconds)


def test_where_systemctl_is_missing_there_is_no_systemd(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert has_systemd() is False
