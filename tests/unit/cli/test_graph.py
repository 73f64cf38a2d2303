"""Tests of sage_core.cli.graph."""

from __future__ import annotations

import pytest

from tests.unit.cli.conftest import Cli
from tests.unit.cli.test_run import LINES


@pytest.mark.parametrize(
    ("form", "start"), [("text", "w"), ("mermaid", "flowchart"), ("dot", "digraph")], ids=lambda value: str(value)
)
def test_each_form_shows_every_step(cli: Cli, form: str, start: str) -> None:
    said = cli("graph", cli.write(LINES), "--format", form)
    assert (said.code, said.err) == (0, "")
    assert said.out.startswith(start)
    assert "lines" in said.out
    assert "upper" in said.out
    assert said.out.endswith("\n")


def test_text_is_the_default(cli: Cli) -> None:
    path = cli.write(LINES)
    assert cli("graph", path).out == cli("graph", path, "--format", "text").out


def test_json_is_the_checked_graph(cli: Cli) -> None:
    found = cli("graph", cli.write(LINES), "--json").json
    assert found["name"] == "w"
    assert list(found["steps"]) == ["lines", "upper"]


def test_what_is_wrong_is_said(cli: Cli) -> None:
    path = cli.write(LINES)
    assert cli("graph", path, "--format", "png").code == 2
    assert cli("graph", "nope.toml").err.startswith("Error: nope.toml: no such file")
    assert cli("graph", cli.write('[steps.a]\nuse = "t.no"\n')).code == 2
