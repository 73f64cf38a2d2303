"""Tests of sage_core.cli.schema."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from sage_core.builtins import default_host
from sage_core.cli.app import App
from sage_core.cli.main import run


def test_the_schema_is_printed_or_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    app = App(default_host({}))
    assert run(["schema"], app) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed["type"] == "object"
    assert "steps" in printed["properties"]
    file = tmp_path / "deep" / "workflow.schema.json"
    assert run(["schema", "--output", str(file)], app) == 0
    assert json.loads(file.read_text(encoding="utf-8")) == printed
    out, err = capsys.readouterr()
    assert out == ""
    assert f"#:schema {file}" in err


def test_a_place_that_cannot_be_written_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").touch()
    place = tmp_path / "file" / "schema.json"
    assert run(["schema", "--output", str(place)], App(default_host({}))) == 2
    assert capsys.readouterr().err == f"Error: {place} cannot be written: File exists\n  help: name another file\n"
