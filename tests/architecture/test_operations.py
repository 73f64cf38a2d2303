"""The page on operations against the code: every logged action, every command, settings and the scaler's query."""

from __future__ import annotations

import ast
import re
from pathlib import Path

from sage_core.common.config import parse_config
from tests.architecture.test_readme import fenced, refusal

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "operations.md"
SOURCES = [*ROOT.glob("sage_core/**/*.py"), *ROOT.glob("plugins/*/sage_*/**/*.py")]


def strings(node: ast.expr) -> list[str]:
    """The texts that an expression may come to; a computed one is a fault of its own."""
    if isinstance(node, ast.Constant):
        return [str(node.value)]
    if isinstance(node, ast.IfExp):
        return [*strings(node.body), *strings(node.orelse)]
    raise AssertionError(f"line {node.lineno}: {ast.unparse(node)} cannot be listed; write the action as a literal")


def actions() -> set[str]:
    """Every action that is logged: the first argument of `log`, or the value of an ``extra={"action": …}``."""
    found: set[str] = set()
    for file in SOURCES:
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "log":
                found.update(strings(node.args[0]))
            if isinstance(node, ast.keyword) and node.arg == "extra" and file.name != "telemetry.py":
                assert isinstance(node.value, ast.Dict)
                pairs = zip(node.value.keys, node.value.values, strict=True)
                found.update(*(strings(value) for key, value in pairs if ast.unparse(key or value) == "'action'"))
    return found


def test_every_action_is_listed() -> None:
    listed = re.findall(r"^\| `(\w+)` \| ", PAGE.read_text(encoding="utf-8").partition("| Action |")[2], re.MULTILINE)
    assert listed == sorted(listed)
    assert sorted(actions() - set(listed)) == []
    assert sorted(set(listed) - actions()) == []


def test_the_settings_are_valid() -> None:
    (block,) = fenced(PAGE, "toml")
    config = parse_config(block, "operations.md")
    assert config.store.url.startswith("postgresql://")
    assert config.cluster.node == "left"


def test_the_scaler_asks_what_the_page_says() -> None:
    (query,) = fenced(PAGE, "sql")
    (manifest,) = fenced(PAGE, "yaml")
    assert f"query: {query.strip()}\n" in manifest
    # The scaler knows only what the container's environment names.
    (variable,) = re.findall(r"connectionFromEnv: (\w+)", manifest)
    assert re.search(rf"^ +env:.*\n +- name: {variable}$", manifest, re.MULTILINE)


def test_commands_that_are_not_executed_are_commands_all_the_same() -> None:
    (unit,) = fenced(PAGE, "ini")
    (image,) = fenced(PAGE, "dockerfile")
    (manifest,) = fenced(PAGE, "yaml")
    service = re.search(r"^ExecStart=\S*/(sage .*)$", unit, re.MULTILINE)
    arrays = [re.search(pattern, text) for pattern, text in ((r"CMD (\[.*\])", image), (r"args: (\[.*\])", manifest))]
    assert service is not None
    lines = [service[1], *(" ".join(ast.literal_eval(found[1])) for found in arrays if found)]
    assert len(lines) == 3
    assert {line: why for line in lines if (why := refusal(line))} == {}


def test_every_block_is_of_a_kind_that_is_held() -> None:
    kinds = set(re.findall(r"^```([^\n]+)$", PAGE.read_text(encoding="utf-8"), re.MULTILINE))
    # tests/acceptance/test_operations.py executes the first three and the query.
    assert kinds == {"sh", "sh sqlite", "sh postgresql", "sql", "toml", "ini", "dockerfile", "yaml"}
