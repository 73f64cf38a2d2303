"""What calls `sage tick`: the units of a systemd user timer, or a line of a crontab."""

from __future__ import annotations

import hashlib
import os
import shlex
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from sage_core.common.errors import UsageError

#: Environment that decides which project a tick works on.
_PLACES = ("SAGE_HOME", "SAGE_CONFIG")
_LOOK = "sage schedules install --print shows what to arrange by other means"
_COMMAND = (sys.executable, "-m", "sage_core.cli", "tick")


class SystemdTimer:
    """A service that ticks once and a timer that starts it, for the user who installs them."""

    def __init__(self, folder: Path, every: float) -> None:
        self._folder = folder
        self._every = every
        base = Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config")
        self.name = _name(folder)
        self._units = base / "systemd" / "user"

    def files(self) -> dict[Path, str]:
        """The unit files and what is in them."""
        environment = "".join(f'Environment="{_escaped(f"{name}={value}")}"\n' for name, value in _places().items())
        command = " ".join(f'"{_escaped(word).replace("$", "$$")}"' for word in _COMMAND)
        service = (
            f"[Unit]\nDescription=sage tick in {_escaped(str(self._folder))}\n\n"
            # Workers that a tick starts outlive it.
            f"[Service]\nType=oneshot\nKillMode=process\nWorkingDirectory={_percent(str(self._folder))}\n"
            f"{environment}ExecStart={command}\n"
        )
        timer = (
            f"[Unit]\nDescription=sage tick in {_escaped(str(self._folder))}\n\n"
            f"[Timer]\nOnActiveSec=1s\nOnUnitActiveSec={self._every:g}s\nAccuracySec=1s\n\n"
            "[Install]\nWantedBy=timers.target\n"
        )
        return {self._units / f"{self.name}.service": service, self._units / f"{self.name}.timer": timer}

    def install(self, *, replace: bool) -> list[str]:
        """Write the units and start the timer; refuses files that say something else."""
        files = self.files()
        for path, text in files.items():
            if not replace and path.exists() and path.read_text(encoding="utf-8") != text:
                raise UsageError(f"{path} exists and says something else", "look at it, then: --replace")
        for path, text in files.items():
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
        _run(["systemctl", "--user", "daemon-reload"])
        _run(["systemctl", "--user", "enable", "--now", f"{self.name}.timer"])
        return [
            *(f"wrote {path}" for path in files),
            f"started {self.name}.timer; to stop it: systemctl --user disable --now {self.name}.timer",
            "to have it run while you are not logged in: loginctl enable-linger",
        ]


class CrontabLine:
    """A line in the crontab of the user who installs it."""

    def __init__(self, folder: Path, every: float) -> None:
        places = "".join(f"{name}={shlex.quote(value)} " for name, value in _places().items())
        command = f"cd {shlex.quote(str(folder))} && {places}{shlex.join(_COMMAND)}"
        self._mark = f"# {_name(folder)}"
        # A bare % ends the command of a crontab line.
        self.line = f"{_crontab(every)} {command} >/dev/null 2>&1 {self._mark}".replace("%", "\\%")

    def install(self, *, replace: bool) -> list[str]:
        """Add the line; refuses where one for this folder says something else."""
        found = _call(["crontab", "-l"])
        # A user without a crontab is an exit status, not a list of no lines.
        lines = found.stdout.splitlines() if found.returncode == 0 else []
        others = [line for line in lines if not line.endswith(self._mark)]
        if self.line in lines:
            return [f"the crontab has this line already: {self.line}"]
        if len(others) < len(lines) and not replace:
            raise UsageError(
                "the crontab has another line for this folder", "look at it with crontab -l, then: --replace"
            )
        _run(["crontab", "-"], given="\n".join([*others, self.line, ""]))
        return [f"added to the crontab: {self.line}"]


def has_systemd() -> bool:
    """Whether a user manager can be reached here."""
    try:
        asked = subprocess.run(["systemctl", "--user", "show-environment"], capture_output=True, check=False)
    except OSError:
        return False
    return asked.returncode == 0


def _name(folder: Path) -> str:
    return f"sage-tick-{hashlib.sha256(os.fsencode(folder)).hexdigest()[:10]}"


def _places() -> dict[str, str]:
    return {name: str(Path(value).expanduser().absolute()) for name in _PLACES if (value := os.environ.get(name))}


def _percent(text: str) -> str:
    return text.replace("%", "%%")


def _escaped(text: str) -> str:
    return _percent(text.replace("\\", "\\\\").replace('"', '\\"'))


def _crontab(every: float) -> str:
    minutes = every / 60
    if minutes in (1, 2, 3, 4, 5, 6, 10, 12, 15, 20, 30):
        return "* * * * *" if minutes == 1 else f"*/{minutes:.0f} * * * *"
    if minutes / 60 in (1, 2, 3, 4, 6, 8, 12, 24):
        hours = minutes / 60
        return "0 0 * * *" if hours == 24 else "0 * * * *" if hours == 1 else f"0 */{hours:.0f} * * *"
    raise UsageError(
        "a crontab cannot say every so often", "use --every 1m, 5m, 15m, 1h or another part of an hour or day"
    )


def _run(command: Sequence[str], *, given: str = "") -> None:
    done = _call(command, given=given)
    if done.returncode:
        raise UsageError(f"{shlex.join(command)} failed: {done.stderr.strip()}", _LOOK)


def _call(command: Sequence[str], *, given: str = "") -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run(command, input=given, capture_output=True, text=True, check=False)
    except OSError as error:
        problem = f"{command[0]} cannot be run ({error.strerror}), and there is no systemd for users here"
        raise UsageError(problem, _LOOK) from None
