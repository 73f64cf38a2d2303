"""Reads one table of a workflow: a getter reports a wrong value and returns the default, so checking goes on."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, TypeVar

from sage_core.common.errors import BadValue
from sage_core.kernel.dataflow import units
from sage_core.kernel.dataflow.diagnostics import Part, Problems, one_of
from sage_core.kernel.dataflow.spans import Path

T = TypeVar("T")
#: From an unknown key to a better message and help than the usual one, or None.
Explain = Callable[[str], tuple[str, str] | None]

_KINDS = {bool: "true or false", int: "an integer", float: "a number", str: "a text", list: "a list", dict: "a table"}


class Settings:
    """One table, its place in the document, and where to report what is wrong with it."""

    def __init__(self, table: Mapping[str, Any], path: Path, problems: Problems) -> None:
        self.table, self.path, self.problems = table, path, problems

    def __contains__(self, key: str) -> bool:
        return key in self.table

    def add(self, key: str, message: str, help: str = "", part: Part = "value") -> None:
        """Report a problem with one key."""
        self.problems.add((*self.path, key), message, help, part)

    def only(self, known: Sequence[str], what: str, explain: Explain | None = None) -> None:
        """Report every key that is not known; `explain` may have a better message and help for some."""
        for key in self.table:
            if key not in known:
                message, help = (explain(key) if explain else None) or (
                    f"unknown key {key!r} in {what}",
                    one_of(key, known, "keys"),
                )
                self.add(key, message, help, "key")

    def need(self, key: str, what: str, help: str = "") -> bool:
        """Report a key that is missing."""
        if key not in self.table:
            self.problems.add(self.path, f"{what} needs {key!r}", help, "key")
        return key in self.table

    def section(self, key: str) -> Settings:
        """A table below this one; empty when it is not there."""
        found = self.table.get(key, {})
        if not isinstance(found, dict):
            self.add(key, f"{key!r} is a table, not {kind(found)}", f"write [{'.'.join(map(str, (*self.path, key)))}]")
            found = {}
        return Settings(found, (*self.path, key), self.problems)

    def sections(self, key: str, what: str) -> Iterable[tuple[str, Settings]]:
        """The named tables of a section: ``[steps.a]``, ``[steps.b]``."""
        section = self.section(key)
        for name, entry in section.table.items():
            if isinstance(entry, dict):
                yield name, Settings(entry, (*section.path, name), self.problems)
            else:
                section.add(name, f"{what} {name!r} is a table, not {kind(entry)}", f"write [{key}.{name}]")

    def text(self, key: str, default: str = "") -> str:
        """A text."""
        return self._typed(key, str, default)

    def flag(self, key: str, default: bool = False) -> bool:
        """True or false."""
        return self._typed(key, bool, default)

    def count(self, key: str, default: int = 0, least: int = 1) -> int:
        """An integer of at least `least`."""
        value = self._typed(key, int, default)
        if value is self.table.get(key) and value < least:
            self.add(key, f"{key!r} must be at least {least}, not {value}")
            return default
        return value

    def number(self, key: str) -> float | None:
        """A finite number, or None."""
        value = self.table.get(key)
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
            self.add(key, f"{key!r} must be a number, not {kind(value)}")
            return None
        return value

    def choice(self, key: str, choices: Sequence[str], default: Any) -> Any:
        """One of a few texts."""
        value = self.table.get(key, default)
        if key in self.table and value not in choices:
            shown = f"{value!r}" if isinstance(value, str) else kind(value)
            self.add(key, f"{key!r} cannot be {shown}", one_of(str(value), choices, "one of"))
            return default
        return value

    def texts(self, key: str, default: tuple[str, ...] = ()) -> tuple[str, ...]:
        """A list of texts; a single text counts as a list of one."""
        value = self.table.get(key, default)
        if isinstance(value, str):
            return (value,)
        if not isinstance(value, (list, tuple)) or not all(isinstance(item, str) for item in value):
            self.add(key, f"{key!r} must be a list of texts, not {kind(value)}")
            return default
        return tuple(value)

    def seconds(self, key: str, default: float | None = None) -> float | None:
        """A duration in seconds."""
        return self.read(key, units.seconds, default)

    def read(self, key: str, reader: Callable[[Any], T], default: T | None) -> T | None:
        """What `reader` makes of the value; its `BadValue` becomes a diagnostic."""
        if key not in self.table:
            return default
        try:
            return reader(self.table[key])
        except BadValue as error:
            self.problems.bad((*self.path, key), error)
            return default

    def _typed(self, key: str, wanted: type[T], default: T) -> T:
        value = self.table.get(key, default)
        if isinstance(value, wanted) and (wanted is bool or not isinstance(value, bool)):
            return value
        self.add(key, f"{key!r} must be {_KINDS[wanted]}, not {kind(value)}")
        return default


def kind(value: object) -> str:
    """A value as diagnostics call it: texts and numbers are shown, others named by their kind."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return f'the text "{value}"' if len(value) < 40 else "a text"
    if isinstance(value, (int, float)):
        return f"{value:.20g}" if isinstance(value, float) else f"{value!s:.20}"
    return _KINDS.get(type(value), f"a {type(value).__name__}")


def unstorable(value: object) -> str:
    """What in a value cannot be kept as JSON: dates, infinities; empty when nothing is."""
    if isinstance(value, dict):
        return next((found for entry in value.values() if (found := unstorable(entry))), "")
    if isinstance(value, list):
        return next((found for entry in value if (found := unstorable(entry))), "")
    if isinstance(value, float) and not math.isfinite(value):
        return f"{value} is not a number that can be stored"
    if value is None or isinstance(value, (str, int, float)):
        return ""
    return f"a TOML {type(value).__name__} is not supported; write it as a text"
