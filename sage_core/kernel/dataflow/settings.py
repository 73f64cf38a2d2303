"""Reads one table of a workflow: what is wrong is reported and left out, so checking goes on."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any

from sage_core.common.errors import BadValue
from sage_core.kernel.dataflow.diagnostics import Part, Problems, one_of
from sage_core.kernel.dataflow.keys import Key, kind, read
from sage_core.kernel.dataflow.spans import Path

#: From an unknown key to a better message and help than the usual one, or None.
Explain = Callable[[str], tuple[str, str] | None]


class Settings:
    """One table, its place in the document, and where to report what is wrong with it."""

    def __init__(self, table: Mapping[str, Any], path: Path, problems: Problems) -> None:
        self.table, self.path, self.problems = table, path, problems

    def __contains__(self, key: str) -> bool:
        return key in self.table

    def add(self, key: str, message: str, help: str = "", part: Part = "value") -> None:
        """Report a problem with one key."""
        self.problems.add((*self.path, key), message, help, part)

    def load(self, keys: Mapping[str, Key], what: str) -> dict[str, Any]:
        """What the table gives for its keys, as far as it is right; reports the keys that are unknown."""
        self.only(keys, what)
        return self.values(keys, what)

    def only(self, known: Collection[str], what: str, explain: Explain | None = None) -> None:
        """Report every key that is not known; `explain` may have a better message and help for some."""
        for key in self.table:
            if key not in known:
                message, help = (explain(key) if explain else None) or (
                    f"unknown key {key!r} in {what}",
                    one_of(key, tuple(known), "keys"),
                )
                self.add(key, message, help, "key")

    def values(self, keys: Mapping[str, Key], what: str) -> dict[str, Any]:
        """What the table gives for its keys, as far as it is right; reports those that are missing or wrong."""
        found: dict[str, Any] = {}
        for name, key in keys.items():
            if name not in self.table:
                if key.needed:
                    self.problems.add(self.path, f"{what} needs {name!r}", key.needed, "key")
            elif key.keys is not None:
                # Sections are called by their header, tables inside them by their key.
                called = repr(name) if self.path else f"[{name}]"
                found[name] = self.section(name, key.example).load(key.keys, called)
            else:
                try:
                    value = self.table[name]
                    found[name] = key.read(value) if key.read else read(key.shape, name, value)
                except BadValue as error:
                    self.problems.bad((*self.path, name), error)
        return found

    def section(self, key: str, example: str = "") -> Settings:
        """A table below this one; empty when it is not there."""
        found = self.table.get(key, {})
        if not isinstance(found, dict):
            example = example or f"[{'.'.join(map(str, (*self.path, key)))}]"
            self.add(key, f"{key!r} is a table, not {kind(found)}", f"write {example}")
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
