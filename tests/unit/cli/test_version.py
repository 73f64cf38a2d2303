"""Tests of sage_core.cli.version."""

from __future__ import annotations

import json
import platform

import pytest

from sage_core import Host, __version__
from sage_core.cli.app import App
from sage_core.cli.main import run
from sage_core.cli.version import LIBRARIES, versions


def test_versions_cover_what_decides_results() -> None:
    found = versions()
    assert found["python"] == platform.python_version()
    assert set(LIBRARIES) < set(found)
    assert "missing" not in found.values()


def test_text_and_json_say_the_same(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["version", "--json"], App(Host({}))) == 0
    document = json.loads(capsys.readouterr().out)
    assert document.pop("plugins") == {}
    assert document.pop("sage") == __version__
    assert run(["version"], App(Host({}))) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines == [f"sage {__version__}", *(f"  {name} {value}" for name, value in document.items())]
