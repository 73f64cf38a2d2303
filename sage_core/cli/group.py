"""A click group whose help tells the first sentence of each command whole."""

from __future__ import annotations

import click


class Group(click.Group):
    """Wraps what `click.Group` cuts short with an ellipsis."""

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        names = self.list_commands(ctx)
        with formatter.section("Commands"):
            formatter.write_dl([(name, self.commands[name].get_short_help_str(limit=1_000)) for name in names])
