"""Tests of sage_core.cli.plan."""

from __future__ import annotations

from tests.unit.cli.conftest import Cli
from tests.unit.cli.test_run import ASK, LINES


def verbs(cli: Cli, *arguments: str) -> dict[str, str]:
    return {name: step["verb"] for name, step in cli("plan", "w.toml", *arguments, "--json").json["steps"].items()}


def test_it_foretells_a_run_and_writes_none(cli: Cli) -> None:
    cli.write(LINES)
    assert verbs(cli) == {"lines": "run", "upper": "deferred"}
    assert cli("runs", "list", "--json").json == []
    cli("run", "w.toml")
    assert verbs(cli) == {"lines": "reuse", "upper": "reuse"}
    assert verbs(cli, "-p", "rows=5") == {"lines": "run", "upper": "deferred"}


def test_the_table_gives_reasons(cli: Cli) -> None:
    said = cli("plan", cli.write(ASK), "-p", "question=nothing")
    assert (said.code, said.err) == (0, "")
    head, *rows = said.out.splitlines()
    assert head.split() == ["step", "operator", "plan", "reused", "rows", "to", "do", "why"]
    assert rows[0].split(maxsplit=4) == [
        "find",
        "t.find",
        "run",
        "0/1",
        "no earlier result has its code, options and inputs",
    ]
    assert rows[1].split()[:3] == ["say", "t.say", "deferred"]


def test_json_names_the_workflow_and_counts(cli: Cli) -> None:
    cli("run", cli.write(LINES))
    found = cli("plan", "w.toml", "--no-probe", "--json").json
    assert found["workflow"] == "w"
    assert found["steps"]["upper"] == {
        "verb": "reuse",
        "reason": "code, options and inputs are those of an earlier result",
        "jobs": 1,
        "reused": 1,
        "rows": 0,
    }


def test_parameters_are_needed_here(cli: Cli) -> None:
    said = cli("plan", cli.write(ASK))
    assert (said.code, said.out) == (2, "")
    assert "param 'question' is missing" in said.err
