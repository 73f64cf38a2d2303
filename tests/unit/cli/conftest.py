from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NamedTuple

import pytest

import sage_core.testing.engines as fake
from sage_core.builtins import default_host
from sage_core.cli.app import App
from sage_core.cli.main import run
from tests.unit.cli import run_operators

ROOT = Path(__file__).parents[3]


class Said(NamedTuple):
    """What a command line came to."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """Standard output, which must be one JSON document."""
        return json.loads(self.out)


class Cli:
    """Runs command lines in this process, over the operators of `run_operators`, in a folder of the test's own."""

    def __init__(self, cwd: Path, home: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.cwd = cwd
        self.home = home
        self._capsys = capsys
        self.plugins: dict[str, object] = {"run": run_operators, "fake": fake}

    def __call__(self, *arguments: str | Path) -> Said:
        self._capsys.readouterr()
        app = App(default_host(self.plugins))
        code = run([str(argument) for argument in arguments], app)
        out, err = self._capsys.readouterr()
        return Said(code, out, err)

    def write(self, text: str, name: str = "w.toml") -> str:
        """Write a workflow; ``sage = 1`` and its name may be left out."""
        (self.cwd / name).write_text(f'sage = 1\nname = "{name.removesuffix(".toml")}"\n{text}')
        return name


@pytest.fixture
def cli(tmp_path: Path, sage_home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Cli:
    cwd = tmp_path / "here"
    cwd.mkdir()
    monkeypatch.chdir(cwd)
    # Worker processes import the operators by name.
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    return Cli(cwd, sage_home, capsys)
