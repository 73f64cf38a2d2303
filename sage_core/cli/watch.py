"""``--watch``: shows a listing again whenever the store has changed; in place on a terminal, else one after another."""

from __future__ import annotations

import contextlib
import io
import sys
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, TypeVar

import click

from sage_core.cli.output import encode_json, print_json
from sage_core.cli.stored import has_store
from sage_core.common.errors import Interrupted, StoreUnavailable

if TYPE_CHECKING:
    from sage_core.kernel.runtime.launch import Project
    from sage_core.platform.store import JobStore

#: Seconds between two looks at whether the store has changed, and seconds after which it is read all the same: a
#: word of a change may get lost, and a lease runs out without one.
GLANCE, LOOK = 0.1, 2.0

Command = TypeVar("Command", bound=Callable[..., Any])
Value = TypeVar("Value")


def watch_option(command: Command) -> Command:
    """Add ``--watch``, received as `watch`."""
    help = "Show it again whenever it has changed, until Ctrl-C; with --json one document a line."
    return click.option("--watch", is_flag=True, help=help)(command)


def look(
    project: Project,
    read: Callable[[JobStore], list[Value]],
    say: Callable[[list[Value]], None],
    *,
    as_json: bool,
    watch: bool,
) -> None:
    """Show a list as `present` does; an empty one where nothing was ever kept."""
    # Watching waits for the first row, and so may make the store that it will be in.
    if has_store(project) or watch:
        with project.open_store() as store:
            present(store, read, say, as_json=as_json, watch=watch)
    else:
        print_json([]) if as_json else say([])


def present(
    store: JobStore,
    read: Callable[[JobStore], Value],
    say: Callable[[Value], None],
    *,
    as_json: bool,
    watch: bool,
    over: Callable[[Value], bool] = lambda value: False,
) -> None:
    """Show what `read` finds: once, or with ``--watch`` each time it differs, until Ctrl-C or until it is `over`.

    Args:
        say: prints the value for people, on standard output.
    """
    if not watch:
        value = read(store)
        print_json(value) if as_json else say(value)
        return
    found = changes(store, read, over, pause)
    try:
        if as_json:
            for value in found:
                click.echo(encode_json(value, indent=-1))
        elif sys.stdout.isatty():
            _in_place(found, say)
        else:
            _one_after_another(found, say)
    except KeyboardInterrupt:
        raise click.exceptions.Exit(Interrupted.exit_code) from None


def changes(
    store: JobStore,
    read: Callable[[JobStore], Value],
    over: Callable[[Value], bool],
    pause: Callable[[JobStore], object],
) -> Iterator[Value]:
    """What `read` finds, each time it differs from what was found before; a database that is away is waited for."""
    last: list[Value] = []
    away = False
    while True:
        try:
            value = read(store)
        except StoreUnavailable as error:
            if not away:
                click.echo(f"waiting: {error.args[0]} {error.args[1]}", err=True)
            away = True
        else:
            away = False
            if [value] != last:
                last = [value]
                yield value
            if over(value):
                return
        pause(store)


def pause(store: JobStore, look: float = LOOK) -> bool:
    """Wait until the store has changed, or for `look` seconds; returns whether it has."""
    until = time.monotonic() + look
    while True:
        # First of all: a store that changes all the time must not be read all the time.
        time.sleep(GLANCE)
        with contextlib.suppress(StoreUnavailable):
            if store.changed():
                return True
        if time.monotonic() >= until:
            return False


class _Page(io.StringIO):
    """Takes what a command prints for a terminal."""

    def isatty(self) -> bool:
        return True


def _in_place(found: Iterator[Value], say: Callable[[Value], None]) -> None:
    from rich.console import Console  # noqa: PLC0415 - rich is imported only to draw
    from rich.live import Live  # noqa: PLC0415 - see above
    from rich.text import Text  # noqa: PLC0415 - see above

    with Live(console=Console(file=sys.stdout), auto_refresh=False) as live:
        for value in found:
            with contextlib.redirect_stdout(_Page()) as page:
                say(value)
            shown = Text.from_ansi(page.getvalue(), no_wrap=True, overflow="ellipsis")
            live.update(shown, refresh=True)


def _one_after_another(found: Iterator[Value], say: Callable[[Value], None]) -> None:
    before = ""
    for value in found:
        with contextlib.redirect_stdout(io.StringIO()) as page:
            say(value)
        if page.getvalue() != before:
            click.echo(("\n" if before else "") + page.getvalue(), nl=False)
            before = page.getvalue()
