"""A SAGE installation of its own in a folder: runs `sage` as a user would, times it, and reads what the probe heard."""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec

from sage_core import SageError

PROBE = Path(__file__).parent / "probe"
#: Seconds to wait for a process that outlives the command which started it.
PATIENCE = 10.0
WORKFLOWS = Path(__file__).parent / "workflows"


class Heard(msgspec.Struct, frozen=True):
    """What the probe heard in one process."""

    argv: list[str]
    #: What happened and when, in ns of the machine's monotonic clock.
    stamps: list[tuple[str, int]]
    statements: dict[str, int]
    loaded: list[str]

    def first(self, start: str) -> int | None:
        """When something whose name begins so happened first."""
        return next((at for name, at in self.stamps if name.startswith(start)), None)


class Done(msgspec.Struct, frozen=True, kw_only=True):
    """A command that has ended well."""

    started: int
    ended: int
    output: str
    #: Processor seconds of the command and of every process it waited for; an engine host is not waited for.
    cpu: float
    heard: list[Heard] = []

    @property
    def seconds(self) -> float:
        """From before the process was started until after it had ended."""
        return (self.ended - self.started) / 1e9

    @property
    def report(self) -> dict[str, Any]:
        """What ``sage … --json`` printed."""
        found: dict[str, Any] = json.loads(self.output)
        return found


class CommandFailed(SageError):
    """A measured command ended with another status than 0."""

    def __init__(self, command: str, status: int, output: str) -> None:
        super().__init__(command, status, output)

    def __str__(self) -> str:
        command, status, output = self.args
        return f"{command} ended with status {status}: {output.strip()[-1500:]}"


class Home:
    """`sage` with everything it writes below one folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)

    def sage(self, *arguments: str, probe: bool = False, sql: bool = False, plugins: str | None = None) -> Done:
        """Run a `sage` command; raises `CommandFailed` unless it ends with status 0."""
        return self.run(sage_command(arguments), probe=probe or sql, sql=sql, plugins=plugins)

    def workflow(self, name: str, *arguments: str, probe: bool = False, sql: bool = False, **params: object) -> Done:
        """Run one of the suites' workflows and have its report."""
        given = [f"--param={key}={value}" for key, value in params.items()]
        return self.sage("run", str(WORKFLOWS / f"{name}.toml"), *given, "--json", *arguments, probe=probe, sql=sql)

    def run(
        self, command: Sequence[str], *, probe: bool = False, sql: bool = False, plugins: str | None = None
    ) -> Done:
        """Run any command with this home's environment."""
        environ = clean_environment() | {"SAGE_HOME": str(self.folder / "home")}
        heard = self.folder / f"heard-{time.monotonic_ns()}"
        if probe:
            heard.mkdir()
            environ |= {"SAGE_BENCH_PROBE": str(heard), "PYTHONPATH": str(PROBE)}
        if sql:
            environ["SAGE_BENCH_SQL"] = "1"
        if plugins is not None:
            environ["SAGE_PLUGINS"] = plugins
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        started = time.monotonic_ns()
        done = subprocess.run(command, cwd=self.folder, env=environ, capture_output=True, text=True, check=False)
        ended = time.monotonic_ns()
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
        if done.returncode:
            raise CommandFailed(" ".join(command), done.returncode, done.stderr or done.stdout)
        return Done(started=started, ended=ended, output=done.stdout, cpu=cpu, heard=_heard(heard) if probe else [])


def _heard(folder: Path) -> list[Heard]:
    """What every process of a command said at its end; an engine host ends a moment after the command."""
    give_up = time.monotonic() + PATIENCE
    while True:
        found = [msgspec.json.decode(file.read_bytes(), type=Heard) for file in sorted(folder.glob("*.json"))]
        spawned = sum(name.startswith(f"spawn {sys.executable}") for heard in found for name, _ in heard.stamps)
        if len(found) > spawned or time.monotonic() > give_up:
            return found
        time.sleep(0.05)


def sage_command(arguments: Sequence[str]) -> list[str]:
    """The `sage` beside this interpreter, as an installed user has it."""
    script = Path(sys.executable).with_name("sage")
    return [*([str(script)] if script.exists() else [sys.executable, "-m", "sage_core.cli"]), *arguments]


def clean_environment() -> dict[str, str]:
    """This environment without what would change a figure: SAGE's own variables, and caches switched off."""
    return {
        name: value
        for name, value in os.environ.items()
        if not name.startswith("SAGE_") and name not in ("PYTHONDONTWRITEBYTECODE", "PYTHONPATH")
    }
