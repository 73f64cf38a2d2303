"""Tests of sage_core.cli.lazy."""

from __future__ import annotations

import click
import pytest
from click.testing import CliRunner

from sage_core import PluginError
from sage_core.cli.lazy import Entry, LazyGroup
from sage_core.common.registry import Registry


@click.command()
def hello() -> None:
    click.echo("hello")


def make_group() -> LazyGroup:
    registry = Registry("command")
    registry.add("greeter", {"hi": f"{__name__}:hello", "hello": "nowhere:hello", "odd": f"{__name__}:make_group"})
    core = {
        "Greetings": {"hello": Entry(f"{__name__}:hello", "Say hello.")},
        "Broken": {
            "gone": Entry("no_such_module:gone", "Is not there."),
            "unnamed": Entry(f"{__name__}:unnamed", "Is not there either."),
        },
    }
    return LazyGroup(name="test", core=core, plugins=lambda: registry)


def test_core_commands_come_first_and_hide_a_plugins() -> None:
    context = click.Context(make_group())
    assert make_group().list_commands(context) == ["hello", "gone", "unnamed", "hi", "odd"]


@pytest.mark.parametrize("name", ["hello", "hi"])
def test_core_and_plugin_commands_run(name: str) -> None:
    assert CliRunner().invoke(make_group(), [name]).output == "hello\n"


def test_help_needs_no_import() -> None:
    output = CliRunner().invoke(make_group(), ["--help"]).output
    assert "gone     Is not there." in output
    assert "From plugins:\n  hi   (plugin greeter)\n  odd  (plugin greeter)\n" in output


@pytest.mark.parametrize(
    ("name", "reason"),
    [("gone", "ModuleNotFoundError: No module named 'no_such_module'"), ("unnamed", "AttributeError: module")],
)
def test_a_missing_core_command_shows_when_it_is_invoked(name: str, reason: str) -> None:
    result = CliRunner().invoke(make_group(), [name])
    assert result.exit_code == 1
    assert f"Error: command '{name}' cannot be loaded: {reason}" in result.output
    assert "help: reinstall sage-core" in result.output


def test_a_plugin_command_that_is_none_names_the_plugin() -> None:
    with pytest.raises(PluginError, match="plugin 'greeter': command 'odd' is no click command"):
        make_group().get_command(click.Context(make_group()), "odd")


def test_an_unknown_name_gets_the_close_one() -> None:
    result = CliRunner().invoke(make_group(), ["helo"])
    assert result.exit_code == 2
    assert "No command is named 'helo'. Did you mean 'hello'?" in result.output
