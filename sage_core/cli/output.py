"""How commands speak: results on standard output, as text, a table or one JSON document; everything else on stderr."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import click

Command = TypeVar("Command", bound=Callable[..., Any])


def json_option(command: Command) -> Command:
    """Add ``--json``, received as `as_json`."""
    option = click.option("--json", "as_json", is_flag=True, help="Print one JSON document on standard output.")
    return option(command)


def print_json(value: object) -> None:
    """Print one indented JSON document."""
    click.echo(encode_json(value))


def encode_json(value: object, *, indent: int = 2) -> str:
    """JSON of records, mappings, sequences and paths; -1 puts it on one line."""
    import msgspec  # noqa: PLC0415 - 30 ms that text output does not need

    return msgspec.json.format(msgspec.json.encode(value, enc_hook=_plain), indent=indent).decode()


def print_table(columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Print aligned columns: fitted to a terminal, one line a row at full width where the output is piped."""
    from rich.console import Console  # noqa: PLC0415 - rich is imported only to draw
    from rich.table import Table  # noqa: PLC0415 - rich is imported only to draw
    from rich.text import Text  # noqa: PLC0415 - rich is imported only to draw

    piped = not sys.stdout.isatty()
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        table.add_column(column, overflow="fold", no_wrap=piped)
    for row in rows:
        table.add_row(*(Text("" if cell is None else str(cell)) for cell in row))
    # A piped table must not be cut at 80 columns: whoever reads it may search in it.
    Console(file=sys.stdout, width=10_000 if piped else None, highlight=False).print(table)


def progress_allowed(as_json: bool = False) -> bool:
    """Whether moving output may be drawn on stderr: a terminal, not CI, and not asked for JSON."""
    return sys.stderr.isatty() and not as_json and not os.environ.get("CI") and os.environ.get("TERM") != "dumb"


def _plain(value: object) -> object:
    if isinstance(value, Path):
        return str(value)
    raise NotImplementedError(f"{type(value).__name__} has no JSON form")
