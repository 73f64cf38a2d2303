"""Tests of sage_core.cli.output."""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from sage_core.cli.output import encode_json, json_option, print_json, print_table, progress_allowed
from sage_core.common.records import Caller


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        return True


def test_json_understands_records_and_paths() -> None:
    decoded = json.loads(encode_json({"caller": Caller(tenant="é"), "path": Path("a/b"), "rows": (1, None)}))
    assert decoded["caller"]["tenant"] == "é"
    assert decoded["path"] == "a/b"
    assert decoded["rows"] == [1, None]


def test_json_refuses_what_has_no_form() -> None:
    with pytest.raises(NotImplementedError, match="object has no JSON form"):
        encode_json(object())


def test_printed_json_is_one_document(capsys: pytest.CaptureFixture[str]) -> None:
    print_json({"a": [1]})
    assert capsys.readouterr().out == '{\n  "a": [\n    1\n  ]\n}\n'


def test_the_json_option_is_received_as_as_json() -> None:
    @click.command()
    @json_option
    def show(as_json: bool) -> None:
        click.echo(as_json)

    assert CliRunner().invoke(show, ["--json"]).output == "True\n"
    assert CliRunner().invoke(show, []).output == "False\n"


def test_a_piped_table_keeps_a_row_on_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    print_table(["name", "text"], [["a", "x" * 500], ["[b]", None]])
    lines = [line.rstrip() for line in capsys.readouterr().out.splitlines()]
    assert lines == ["name  text", f"a     {'x' * 500}", "[b]"]


def test_a_table_on_a_terminal_fits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "60")
    monkeypatch.setattr(sys, "stdout", terminal := Terminal())
    print_table(["name", "text"], [["a", "x" * 500]])
    assert "x" * 20 in terminal.getvalue()
    assert max(len(line) for line in terminal.getvalue().splitlines()) < 100


def test_progress_is_for_terminals(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CI", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(sys, "stderr", Terminal())
    assert progress_allowed()
    assert not progress_allowed(as_json=True)
    monkeypatch.setenv("TERM", "dumb")
    assert not progress_allowed()
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("CI", "true")
    assert not progress_allowed()
    monkeypatch.delenv("CI")
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    assert not progress_allowed()
