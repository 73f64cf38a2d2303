"""Tests of quickstart.sh where it must refuse: the way through is what CI runs."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A checkout with nothing but the script, and a PATH with nothing but what a minimal system has."""
    shutil.copy(ROOT / "quickstart.sh", tmp_path)
    programs = tmp_path / "programs"
    programs.mkdir()
    for name in ("bash", "cat", "dirname", "env", "rm", "git"):
        found = shutil.which(name)
        assert found is not None
        (programs / name).symlink_to(found)
    return tmp_path


def quickstart(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(folder / "quickstart.sh"), *arguments],
        env={"PATH": str(folder / "programs"), "HOME": str(folder)},
        cwd="/",
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
        check=False,
    )


def program(folder: Path, name: str, script: str) -> None:
    file = folder / "programs" / name
    file.write_text(f"#!/usr/bin/env bash\n{script}\n", encoding="utf-8")
    file.chmod(0o755)


def test_help_and_a_wrong_word(folder: Path) -> None:
    shown = quickstart(folder, "--help")
    assert shown.returncode == 0
    assert shown.stdout.startswith("usage: ./quickstart.sh ")
    wrong = quickstart(folder, "tset")
    assert wrong.returncode == 2
    assert wrong.stderr == shown.stdout


def test_without_python_it_says_what_to_install(folder: Path) -> None:
    result = quickstart(folder)
    assert result.returncode == 1
    assert "quickstart: no Python 3.11 or later was found (tried python3.13," in result.stderr
    assert "SAGE_PYTHON=/path/to/python3.11 ./quickstart.sh" in result.stderr
    assert not (folder / ".venv").exists()


def test_an_old_python_and_a_broken_shim_are_passed_over(folder: Path) -> None:
    program(folder, "python3.13", "exit 127")
    program(folder, "python3", "exit 1")  # what the version check of an older Python returns
    result = quickstart(folder)
    assert result.returncode == 1
    assert "no Python 3.11 or later was found" in result.stderr


def test_without_the_venv_module_it_says_which_package(folder: Path) -> None:
    program(folder, "python3", 'case "$*" in *ensurepip*) exit 1 ;; *--version*) echo Python 3.12.1 ;; esac')
    result = quickstart(folder)
    assert result.returncode == 1
    assert "quickstart: python3 has no venv module with pip." in result.stderr
    assert "apt install python3-venv" in result.stderr
    assert not (folder / ".venv").exists()
