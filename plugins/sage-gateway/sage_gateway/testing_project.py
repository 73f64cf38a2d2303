"""A project on the disk for tests with worker processes: operators of its own, and workflows deployed from it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from sage_core.testing import install_wheel

if TYPE_CHECKING:
    import pytest

OPERATORS = """
import time
from collections.abc import Mapping
from sage_core import hookimpl, operator

@hookimpl
def sage_operators() -> Mapping[str, str]:
    return {"samples.answer": "sage_samples:answer", "samples.slow": "sage_samples:slow"}

@operator("samples.answer", returns="text")
def answer(question: str, *, tone: str = "plain") -> str:
    if "break" in question:
        raise ValueError("no answer to that")
    return f"{tone} answer to {question}"

@operator("samples.slow", returns="text")
def slow(question: str, *, seconds: float = 60.0) -> str:
    time.sleep(seconds)
    return question
"""


class ProjectFolder:
    """A folder that is SAGE's home, for this process and for those it starts."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder = folder
        packages = folder / "packages"
        install_wheel(
            packages, "sage-samples", {"sage_samples/__init__.py": OPERATORS}, entry_points={"samples": "sage_samples"}
        )
        monkeypatch.setenv("SAGE_HOME", str(folder))
        monkeypatch.setenv("PYTHONPATH", str(packages))
        monkeypatch.delenv("SAGE_CONFIG", raising=False)
        monkeypatch.syspath_prepend(str(packages))

    def deploy(self, workflow: str, *options: str, name: str = "flow.toml") -> None:
        """Deploy a workflow, given as the text of its file."""
        (self.folder / name).write_text(workflow)
        self.sage("deploy", name, *options)

    def sage(self, *arguments: str) -> str:
        """Run the command in the project; returns what it printed."""
        command = [sys.executable, "-m", "sage_core.cli", *arguments]
        done = subprocess.run(command, cwd=self.folder, capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout
