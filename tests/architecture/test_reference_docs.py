"""The reference pages against what they describe: the command line, the settings, the sizes of the layers."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator
from pathlib import Path

import click
import msgspec
import pytest

from sage_core.builtins import default_host
from sage_core.cli.app import App
from sage_core.cli.main import EPILOG, make_cli
from sage_core.common.config import Config, SchedulerConfig, SelectorConfig, StoreConfig, WorkerConfig, parse_config
from sage_core.common.ports import DEFAULTS
from sage_core.common.records import RunStatus
from tests.architecture import layers

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"


def page(name: str) -> str:
    return (DOCS / name).read_text(encoding="utf-8")


def commands(group: click.Command, context: click.Context, path: str) -> Iterator[tuple[str, click.Command]]:
    yield path, group
    if isinstance(group, click.Group):
        for name in group.list_commands(context):
            command = group.get_command(context, name)
            assert command is not None
            yield from commands(command, click.Context(command, parent=context), f"{path} {name}")


ROOT_COMMAND = make_cli(App(default_host({})))
COMMANDS = dict(commands(ROOT_COMMAND, click.Context(ROOT_COMMAND), "sage"))


@pytest.mark.parametrize("path", COMMANDS)
def test_every_command_and_option_is_on_the_page(path: str) -> None:
    text = page("cli.md")
    assert re.search(rf"`{path}\b", text)
    # From where the command is told of to the end of its section, or its line of a table.
    start = text.index(f"`{path}")
    found = re.compile(r"^\| `" + re.escape(path) + r"\b.*$", re.MULTILINE).search(text)
    told = found[0] if found else text[start:].partition("\n### ")[0].partition("\n## ")[0]
    for param in COMMANDS[path].params:
        if isinstance(param, click.Option) and "--help" not in param.opts:
            for option in (*param.opts, *param.secondary_opts):
                assert re.search(rf"`[^`]*{option}\b", told if path != "sage" else text), f"{path}: {option}"


def test_exit_codes_are_those_of_the_command() -> None:
    codes = re.findall(r"^  (\d+) ", EPILOG, re.MULTILINE)
    assert re.findall(r"^\| (\d+) \|", page("cli.md"), re.MULTILINE) == codes


def example() -> str:
    block = re.search(r"^```toml\n(.*?)^```$", page("configuration.md"), re.MULTILINE | re.DOTALL)
    assert block is not None
    return block[1]


def test_the_example_holds_every_key_with_its_default() -> None:
    given = tomllib.loads(example())
    sections = {"store": StoreConfig(), "scheduler": SchedulerConfig(), "workers": WorkerConfig()}
    for section, defaults in sections.items():
        assert given[section] == msgspec.to_builtins(defaults)
    assert given["ports"] == dict(DEFAULTS)
    assert set(given["selectors"]["mine"]) == set(SelectorConfig.__struct_fields__)
    assert set(given) == set(Config.__struct_fields__)
    assert parse_config(example(), "configuration.md").workers == WorkerConfig()


def test_the_projects_own_settings_are_valid() -> None:
    found = parse_config((ROOT / "sage.toml").read_text(encoding="utf-8"), "sage.toml")
    assert found == Config()


def test_every_environment_variable_is_on_the_page() -> None:
    sources = [*ROOT.glob("sage_core/**/*.py"), *ROOT.glob("plugins/*/sage_*/**/*.py"), ROOT / "quickstart.sh"]
    named = {name for file in sources for name in re.findall(r"\bSAGE_[A-Z_]+", file.read_text(encoding="utf-8"))}
    assert "SAGE_HOME" in named
    described = set(re.findall(r"^\| `([A-Z_]+)(?:<NAME>)?` \|", page("configuration.md"), re.MULTILINE))
    assert sorted(named - described) == []
    assert sorted(each for each in described - named if each != "QUESTION") == []


def test_every_run_status_is_described() -> None:
    for status in RunStatus.__args__:  # type: ignore[attr-defined] # a Literal
        assert f"`{status}`" in page("jobs.md")


def test_the_sizes_are_up_to_date() -> None:
    written = layers.written()
    counted = {row[0]: row[3] for row in layers.table()}
    assert list(written) == list(counted), "run: python -m tests.architecture.layers"
    stale = {
        part: (written[part], lines)
        for part, lines in counted.items()
        if abs(written[part] - lines) > max(50, lines * 0.05)
    }
    assert stale == {}, "run: python -m tests.architecture.layers"


def test_every_decision_is_in_the_list() -> None:
    files = {file.name for file in (DOCS / "decisions").glob("*.md")} - {"README.md"}
    assert set(re.findall(r"\]\(([\w-]+\.md)\)", page("decisions/README.md"))) == files
