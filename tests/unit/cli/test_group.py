"""Tests of sage_core.cli.group."""

from __future__ import annotations

import click
from click.testing import CliRunner

from sage_core.cli.group import Group

LONG = "Go through every one of the things that there are, in the order in which they came, and say what each is."


@click.group(cls=Group)
def things() -> None:
    """Things."""


@things.command(help=f"{LONG}\n\nNot in the list.")
def go() -> None: ...


def test_a_long_sentence_is_wrapped_and_not_cut() -> None:
    listed = CliRunner().invoke(things, ["--help"], terminal_width=60).output.partition("Commands:\n")[2]
    assert " ".join(listed.split()) == f"go {LONG}"
    assert max(map(len, listed.splitlines())) <= 60
