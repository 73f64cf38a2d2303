"""A click group whose commands are names until one is invoked: help and start-up import no command module."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import click

from sage_core.common.errors import PluginError, suggest
from sage_core.common.registry import Registry


class Entry(NamedTuple):
    """A command as help lists it: the ``module:attribute`` that defines it, and one line on what it is for."""

    target: str
    help: str


class LazyGroup(click.Group):
    """Resolves core commands from a static table and all others through the plugins, which are asked only then.

    Args:
        core: heading in the help → command name → entry. A core name wins over a plugin's.
        plugins: returns the registry of plugin commands.
    """

    def __init__(
        self, *args: Any, core: Mapping[str, Mapping[str, Entry]], plugins: Callable[[], Registry], **kwargs: Any
    ) -> None:
        super().__init__(*args, **kwargs)
        self.sections = core
        self.core = {name: entry for entries in core.values() for name, entry in entries.items()}
        self._plugins = plugins

    def list_commands(self, ctx: click.Context) -> list[str]:
        return [*self.core, *(name for name in self._plugins() if name not in self.core)]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name in self.core:
            return self._import(cmd_name)
        plugins = self._plugins()
        if cmd_name not in plugins:
            return None
        command = plugins[cmd_name]
        if not isinstance(command, click.Command):
            raise PluginError(plugins.origin(cmd_name), f"command {cmd_name!r} is no click command")
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        name = args[0]
        command = self.get_command(ctx, name)
        if command is None:
            ctx.fail(f"No command is named {name!r}.{suggest(name, self.list_commands(ctx))}")
        return name, command, args[1:]

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        for heading, table in self.sections.items():
            with formatter.section(heading):
                formatter.write_dl([(name, entry.help) for name, entry in table.items()])
        plugins = self._plugins()
        extra = [(name, f"(plugin {plugins.origin(name)})") for name in plugins if name not in self.core]
        if extra:
            with formatter.section("From plugins"):
                formatter.write_dl(extra)

    def _import(self, name: str) -> click.Command:
        module, _, attribute = self.core[name].target.partition(":")
        try:
            command = getattr(importlib.import_module(module), attribute)
        except (ImportError, AttributeError) as error:
            raise click.ClickException(
                f"command {name!r} cannot be loaded: {type(error).__name__}: {error}\n"
                "  help: reinstall sage-core with its dependencies; `sage doctor` shows what is there"
            ) from error
        assert isinstance(command, click.Command), f"{self.core[name].target} is no click command"
        return command
