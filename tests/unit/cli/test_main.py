"""Tests of sage_core.cli.main: what a command line looks like from outside."""

from __future__ import annotations

import importlib
import subprocess
import sys

import click
import pytest

from sage_core import Host, SageError, UsageError, __version__, hookimpl
from sage_core.cli.app import App
from sage_core.cli.lazy import Entry
from sage_core.cli.main import COMMANDS, run
from sage_core.common.errors import Interrupted, InvalidWorkflow

FAILURES: dict[str, tuple[BaseException, int, str]] = {
    "sage": (SageError("a"), 1, "Error: a\n"),
    "usage": (UsageError("no such row", "count again"), 2, "Error: no such row\n  help: count again\n"),
    "interrupted": (Interrupted("r1"), 130, "Error: interrupted; finished work is kept\n  help: sage runs resume r1\n"),
    "invalid": (InvalidWorkflow(["a.toml:1:1: bad"]), 2, "a.toml:1:1: bad\n\n1 error\n"),
    "click": (click.UsageError("what?"), 2, "Error: what?\n"),
    "abort": (click.Abort(), 1, "Aborted.\n"),
    "ctrl-c": (KeyboardInterrupt(), 130, "Interrupted.\n"),
    "exit": (click.exceptions.Exit(7), 7, ""),
}


class Commands:
    """A plugin with commands: one fails as told, one cannot be imported, one is no command, one has a core name."""

    @hookimpl
    def sage_commands(self) -> dict[str, str]:
        return {
            "fail": f"{__name__}:fail",
            "broken": "no_such_module:command",
            "odd": f"{__name__}:FAILURES",
            "version": "no_such_module:version",
        }


@click.command()
@click.argument("how")
def fail(how: str) -> None:
    click.echo("before")
    raise FAILURES[how][0]


@pytest.fixture
def app() -> App:
    return App(Host({"helper": Commands()}))


@pytest.mark.parametrize("how", FAILURES)
def test_an_error_becomes_a_message_and_a_status(how: str, app: App, capsys: pytest.CaptureFixture[str]) -> None:
    _, status, text = FAILURES[how]
    assert run(["fail", how], app) == status
    out, err = capsys.readouterr()
    assert out == "before\n"
    assert err.endswith(text)
    assert err.startswith("Usage: sage fail" if how == "click" else text)


def test_anything_else_is_a_defect_with_its_traceback(app: App, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["fail", "no such key"], app) == 70
    err = capsys.readouterr().err
    assert "Traceback" in err
    assert "KeyError: 'no such key'" in err
    assert err.endswith("Error: this is a defect in SAGE or in a plugin; please report it with the lines above.\n")


def test_a_plugin_command_that_cannot_be_imported_names_its_plugin(
    app: App, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["broken"], app) == 1
    assert capsys.readouterr().err.startswith(
        "Error: plugin 'helper': command 'broken' (no_such_module:command) cannot"
    )
    assert run(["odd"], app) == 1
    assert capsys.readouterr().err == "Error: plugin 'helper': command 'odd' is no click command\n"


def test_a_core_command_wins_over_a_plugins(app: App, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["version"], app) == 0
    assert capsys.readouterr().out.startswith(f"sage {__version__}\n")


def test_a_misspelt_command_is_answered_with_the_close_one(app: App, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["fial"], app) == 2
    assert "Error: No command is named 'fial'. Did you mean 'fail'?" in capsys.readouterr().err
    assert run(["plugin"], app) == 2
    assert "Did you mean 'plugins'?" in capsys.readouterr().err


def test_help_lists_core_and_plugin_commands_and_the_exit_codes(app: App, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["--help"], app) == 0
    out = capsys.readouterr().out
    for table in COMMANDS.values():
        for name, entry in table.items():
            assert f"  {name} " in out
            assert entry.help in " ".join(out.split())
    assert "broken  (plugin helper)" in out
    assert "(plugin helper)" in out.split("From plugins:")[1]
    assert out.count("  version ") == 1
    assert "70   a defect in SAGE or in a plugin" in out


def resolve(entry: Entry) -> click.Command:
    module, _, attribute = entry.target.partition(":")
    command = getattr(importlib.import_module(module), attribute)
    assert isinstance(command, click.Command)
    return command


CORE = {name: resolve(entry) for table in COMMANDS.values() for name, entry in table.items()}
MEMBERS = {
    f"{name} {member}": command
    for name, group in CORE.items()
    if isinstance(group, click.Group)
    for member, command in group.commands.items()
}


@pytest.mark.parametrize(("name", "entry"), [pair for table in COMMANDS.values() for pair in table.items()])
def test_the_help_of_a_core_command_is_that_of_the_table(name: str, entry: Entry) -> None:
    """The table repeats each command's help so that `sage --help` needs no import; this keeps the two equal."""
    assert CORE[name].name == name
    assert CORE[name].get_short_help_str(limit=200) == entry.help


@pytest.mark.parametrize("line", ["", *CORE, *MEMBERS])
def test_every_help_shows_an_example_and_every_result_can_be_json(
    line: str, app: App, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run([*line.split(), "--help"], app) == 0
    out = capsys.readouterr().out
    assert f"    sage {line}".rstrip() in out.partition("Examples:\n")[2]
    command = (CORE | MEMBERS).get(line)
    if isinstance(command, click.Group):
        listed = " ".join(out.partition("Commands:")[2].split())
        for each in command.commands.values():
            assert f"{each.name} {each.get_short_help_str(limit=1_000)}" in listed, "a help text is cut short"
    elif command is not None and line != "schema":
        assert "--json" in out


def test_no_command_shows_help_and_fails(app: App, capsys: pytest.CaptureFixture[str]) -> None:
    assert run([], app) == 2
    assert "Usage: sage [OPTIONS] COMMAND" in capsys.readouterr().err


def test_the_version_option(app: App, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["--version"], app) == 0
    assert capsys.readouterr().out == f"sage {__version__}\n"


def test_a_reader_that_leaves_is_no_error() -> None:
    command = [sys.executable, "-m", "sage_core.cli", "--help"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        process.stdout.close()
        assert process.stderr is not None
        assert process.stderr.read() == ""
    assert process.returncode == 141


def test_help_imports_no_command_and_nothing_heavy() -> None:
    code = (
        "import sys; from sage_core.cli.main import run; run(['--help']); print(*sorted(sys.modules), file=sys.stderr)"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = set(result.stderr.split())
    assert "sage_core.cli.lazy" in loaded
    heavy = {"sqlalchemy", "alembic", "pyarrow", "numpy", "rich", "asyncio", "tree_sitter", "onnxruntime", "tokenizers"}
    commands = {entry.target.partition(":")[0] for table in COMMANDS.values() for entry in table.values()}
    assert not loaded & (heavy | commands)
