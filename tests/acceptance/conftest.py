"""Runs the installed `sage` command in a folder of its own, as a user would."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
SAGE = Path(sys.executable).with_name("sage")


class Sage:
    """The command line, with one SAGE_HOME and one current folder."""

    def __init__(self, home: Path, cwd: Path, **environ: str) -> None:
        self.home = home
        self.cwd = cwd
        clean = {name: value for name, value in os.environ.items() if not name.startswith("SAGE_")}
        self.environ = {**clean, "SAGE_HOME": str(home), **environ}

    def __call__(self, *args: str | Path, code: int = 0) -> subprocess.CompletedProcess[str]:
        """Run a command and hold it to an exit code."""
        done = subprocess.run(
            [SAGE, *map(str, args)], cwd=self.cwd, env=self.environ, capture_output=True, text=True, timeout=120
        )
        assert done.returncode == code, f"exit {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done

    def json(self, *args: str | Path, code: int = 0) -> Any:
        """Run a command with ``--json`` and read what it prints."""
        return json.loads(self(*args, "--json", code=code).stdout)

    def start(self, *args: str | Path) -> subprocess.Popen[str]:
        """Start a command as the leader of a process group of its own."""
        return subprocess.Popen(
            [SAGE, *map(str, args)],
            cwd=self.cwd,
            env=self.environ,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def at(self, home: Path) -> Sage:
        """The same command line over another SAGE_HOME."""
        other = Sage(home, self.cwd)
        other.environ = {**self.environ, "SAGE_HOME": str(home)}
        return other


@pytest.fixture
def sage(tmp_path: Path) -> Sage:
    work = tmp_path / "work"
    work.mkdir()
    return Sage(tmp_path / "home", work)


def partitions(report: Mapping[str, Any], step: str) -> tuple[int, int, int]:
    """(total, reused, run) of a step in a report."""
    counts = report["steps"][step]["partitions"]
    return counts["total"], counts["reused"], counts["run"]
