"""Tests of sage_core.cli.check."""

from __future__ import annotations

from tests.unit.cli.conftest import Cli
from tests.unit.cli.test_run import ASK, LINES, cold


def test_a_valid_file_needs_no_parameter_values(cli: Cli) -> None:
    path = cli.write(ASK)
    said = cli("check", path)
    assert (said.code, said.out, said.err) == (0, "w.toml: valid, 3 steps\n", "")
    assert cli("check", path, "--json").json == {
        "valid": True,
        "diagnostics": [],
        "warnings": [],
        "steps": ["find", "say", "silence"],
    }


def test_every_error_has_its_place_and_a_way_out(cli: Cli) -> None:
    path = cli.write(LINES.replace("t.upper", "t.uper").replace("t.lines", "t.line"))
    said = cli("check", path)
    assert (said.code, said.out) == (2, "")
    assert "w.toml:9:7: no operator is named 't.line'" in said.err
    assert "w.toml:13:7: no operator is named 't.uper'" in said.err
    assert "Did you mean 't.upper'?" in said.err
    assert "^^^^^^^^" in said.err
    assert said.err.endswith("\n2 errors\n")

    found = cli("check", path, "--json")
    assert (found.code, found.err) == (2, "")
    assert found.json["valid"] is False
    assert [line.split(": ")[0] for line in found.json["diagnostics"]] == ["w.toml:9:7", "w.toml:13:7"]


def test_profiles_are_checked_as_they_are_named(cli: Cli) -> None:
    path = cli.write(LINES + "\n[profile.small.steps.lines.with]\nn = 1\n[profile.odd.steps.lines.with]\nm = 1\n")
    assert cli("check", path, "--profile", "small").code == 0
    wrong = cli("check", path, "--profile", "odd")
    assert wrong.code == 2
    unknown = cli("check", path, "--profile", "smal")
    assert unknown.code == 2
    assert "Did you mean 'small'?" in unknown.err


def test_a_missing_file_is_said(cli: Cli) -> None:
    said = cli("check", "nope.toml")
    assert (said.code, said.out) == (2, "")
    assert said.err == "Error: nope.toml: no such file\n  help: name a workflow file, such as workflow.toml\n"


def test_it_imports_nothing_heavy(cli: Cli) -> None:
    cli.write(LINES)
    assert cold(cli, "check", "w.toml").stderr == "[]\n"
