"""Records that the operators of the tests' workflows take and return, and the log that they write."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TypedDict


@dataclass
class Item:
    id: int
    text: str
    group: str | None


@dataclass
class Word:
    word: str
    at: int


@dataclass
class Letter:
    letter: str


class Draft(TypedDict):
    state: str
    done: bool


@dataclass
class Pair:
    left: str
    right: str | None


@dataclass
class Entry:
    text: str
    id: int


def note(log: str, what: str) -> None:
    """Append one line; small appends of several processes do not mix."""
    if log:
        with Path(log).open("a", encoding="utf-8") as out:
            out.write(f"{what}\n")
