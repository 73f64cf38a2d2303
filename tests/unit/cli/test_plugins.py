"""Tests of sage_core.cli.plugins, the last ones with a real plugin in an environment of its own."""

from __future__ import annotations

import json
import subprocess
import sysconfig
import venv
from pathlib import Path

import pytest

from sage_core import Host, hookimpl
from sage_core.cli.app import App
from sage_core.cli.main import run
from sage_core.testing import install_wheel


class Good:
    @hookimpl
    def sage_schedulers(self) -> dict[str, str]:
        return {"first": f"{__name__}:First", "second": f"{__name__}:First"}


class Bad:
    @hookimpl
    def sage_schedulers(self) -> dict[str, str]:
        raise RuntimeError("no luck")


@pytest.fixture
def app() -> App:
    return App(Host({"good": Good(), "bad": Bad()}))


def test_list_shows_what_each_adds_or_why_not(app: App, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["plugins", "list"], app) == 0
    lines = [line.split(maxsplit=1) for line in capsys.readouterr().out.splitlines()]
    assert lines[0][0] == "plugin"
    assert lines[1] == ["bad", "quarantined: RuntimeError: no luck"]
    assert [part.rstrip() for part in lines[2]] == ["good", "schedulers first, second"]


def test_list_as_json(app: App, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["plugins", "list", "--json"], app) == 0
    assert json.loads(capsys.readouterr().out) == [
        {"name": "bad", "version": "", "distribution": "", "adds": {}, "error": "RuntimeError: no luck"},
        {
            "name": "good",
            "version": "",
            "distribution": "",
            "adds": {"schedulers": ["first", "second"]},
            "error": "",
        },
    ]


def test_info_says_where_each_name_is_defined(app: App, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["plugins", "info", "good"], app) == 0
    out = capsys.readouterr().out
    assert f"    first                {__name__}:First\n" in out
    assert run(["plugins", "info", "good", "--json"], app) == 0
    assert json.loads(capsys.readouterr().out)["hooks"] == ["sage_schedulers"]
    assert run(["plugins", "info", "bad"], app) == 0
    assert "quarantined: RuntimeError: no luck" in capsys.readouterr().out


def test_an_unknown_plugin_gets_the_close_one(app: App, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["plugins", "info", "god"], app) == 2
    assert "No plugin is named 'god'. Did you mean 'good'? Known: bad, good." in capsys.readouterr().err


def test_a_bare_name_is_not_installed(app: App, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["plugins", "install", "sage-onxx"], app) == 2
    assert "Did you mean 'sage-onnx'?" in capsys.readouterr().err


def test_uninstalling_part_of_the_core_is_refused(app: App, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["plugins", "uninstall", "good", "--yes"], app) == 2
    assert "'good' is part of the core" in capsys.readouterr().err
    assert run(["plugins", "uninstall", "pip", "--yes"], app) == 2
    assert "No plugin is named 'pip'" in capsys.readouterr().err


@pytest.fixture
def sage(tmp_path: Path) -> list[str]:
    """`sage` in an empty environment that borrows this one's packages, so that nothing has to be downloaded."""
    home = tmp_path / "venv"
    venv.create(home, with_pip=False, symlinks=True)
    packages = Path(sysconfig.get_path("purelib", vars={"base": str(home), "platbase": str(home)}))
    root = Path(__file__).parents[3]
    (packages / "borrowed.pth").write_text(f"{root}\n{sysconfig.get_path('purelib')}\n", encoding="utf-8")
    return [str(home / "bin" / "python"), "-m", "sage_core.cli"]


@pytest.fixture
def wheel(tmp_path: Path) -> Path:
    """A plugin as small as one can be."""
    code = (
        "from sage_core import hookimpl\n\n@hookimpl\ndef sage_schedulers():\n    return {'tiny': 'sage_tiny:Tiny'}\n"
    )
    points = {"tiny": "sage_tiny"}
    return install_wheel(tmp_path / "wheels", "sage-tiny", {"sage_tiny.py": code}, entry_points=points)


def test_a_wheel_is_installed_shown_and_uninstalled(sage: list[str], wheel: Path) -> None:
    def call(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*sage, *arguments], capture_output=True, text=True, stdin=subprocess.DEVNULL, check=False
        )

    installed = call("plugins", "install", str(wheel), "--json")
    assert installed.returncode == 0, installed.stderr
    assert json.loads(installed.stdout) == [
        {
            "name": "tiny",
            "version": "1.0",
            "distribution": "sage-tiny",
            "adds": {"schedulers": ["tiny"]},
            "error": "",
        }
    ]
    refused = call("plugins", "uninstall", "tiny")
    assert refused.returncode == 2
    assert "add --yes" in refused.stderr
    gone = call("plugins", "uninstall", "tiny", "--yes", "--json")
    assert gone.returncode == 0, gone.stderr
    assert json.loads(gone.stdout) == {"distribution": "sage-tiny", "plugins": ["tiny"]}
    assert "tiny" not in call("plugins", "list").stdout
