"""Where keys and values stand in a TOML file; asked only when an error must be shown.

tomllib judges and drops positions; tree-sitter-toml finds places and judges nothing: it calls some valid files wrong
and sees nothing wrong in many invalid ones. Where it has no answer, a plain search for the header and the key does.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator
from typing import TYPE_CHECKING

from sage_core.common.records import Record

if TYPE_CHECKING:
    from tree_sitter import Node

#: Keys and indices from the root of a TOML document.
Path = tuple[str | int, ...]

_HEADER = re.compile(r"\s*\[\[?([^\[\]]+)\]\]?\s*(?:#.*)?$")


class Span(Record):
    """A stretch of text: 1-based line and column in characters, and its length on that line."""

    line: int
    column: int
    length: int = 1

    def __str__(self) -> str:
        return f"{self.line}:{self.column}"


class Spans:
    """The places of one text (with ``\\n`` line ends, as tomllib counts them)."""

    def __init__(self, text: str) -> None:
        self._lines = text.split("\n")
        self._bytes = [line.encode("utf-8", "surrogatepass") for line in self._lines]
        self._keys: dict[Path, Span] = {}
        self._values: dict[Path, Span] = {}
        #: Definitions that repeat an earlier one: path, first place, second place.
        self.repeated: list[tuple[Path, Span, Span]] = []
        self._tables: set[Path] = set()
        self._dotted: set[Path] = set()
        self._elements: dict[Path, int] = {}
        try:
            self._read(text)
        except ImportError:
            return

    def find(self, path: Path, part: str = "value") -> Span:
        """The place of a path's key or value; where it is not written, of the nearest ancestor that is."""
        chosen, other = (self._values, self._keys) if part == "value" else (self._keys, self._values)
        for end in range(len(path), 0, -1):
            here = path[:end]
            # An ancestor is pointed at by its key: its value may be a whole table.
            span = chosen.get(here) or other.get(here) if end == len(path) else self._keys.get(here)
            span = span or self._search(here) or self._values.get(here)
            if span is not None:
                return span
        return Span(line=1, column=1)

    def _read(self, text: str) -> None:
        import tree_sitter_toml  # noqa: PLC0415 - 20 ms that only a file with an error pays
        from tree_sitter import Language, Parser  # noqa: PLC0415 - as above

        tree = Parser(Language(tree_sitter_toml.language())).parse(text.encode("utf-8", "surrogatepass"))
        for node in tree.root_node.children:
            if node.type == "pair":
                self._pair(node, ())
            elif node.type in ("table", "table_array_element"):
                self._table(node)

    def _table(self, node: Node) -> None:
        key = _key_of(node)
        if key is None:
            return
        path: Path = ()
        for name, place in key[:-1]:
            path = (*path, name)
            if path in self._elements:
                # ``[a.b]`` below ``[[a]]`` speaks of the last element of ``a``.
                path = (*path, self._elements[path])
            if path in self._values:
                self.repeated.append((path, self._keys[path], self._span(place)))
            self._keys.setdefault(path, self._span(place))
        name, place = key[-1]
        path, span = (*path, name), self._span(place)
        if node.type == "table_array_element":
            self._elements[path] = self._elements.get(path, -1) + 1
            self._keys.setdefault(path, span)
            path = (*path, self._elements[path])
        elif path in self._tables | self._dotted or path in self._values or path in self._elements:
            self.repeated.append((path, self._keys[path], span))
        else:
            self._tables.add(path)
        self._keys.setdefault(path, span)
        for child in node.children:
            if child.type == "pair":
                self._pair(child, path)

    def _pair(self, node: Node, base: Path) -> None:
        key = _key_of(node)
        if key is None:
            return
        path = base
        for name, place in key[:-1]:
            path = (*path, name)
            self._dotted.add(path)
            self._keys.setdefault(path, self._span(place))
        path = (*path, key[-1][0])
        span = self._span(key[-1][1])
        if path in self._keys:
            self.repeated.append((path, self._keys[path], span))
            return
        self._keys[path] = span
        value = _value_of(node)
        if value is not None:
            self._value(value, path)

    def _value(self, node: Node, path: Path) -> None:
        self._values[path] = self._span(node)
        if node.type == "inline_table":
            for child in node.children:
                if child.type == "pair":
                    self._pair(child, path)
        elif node.type == "array":
            items = (child for child in node.children if child.is_named and child.type != "comment")
            for index, child in enumerate(items):
                self._value(child, (*path, index))

    def _span(self, node: Node) -> Span:
        (row, start), (end_row, end) = node.start_point, node.end_point
        # tree-sitter counts bytes; people count characters.
        line = self._bytes[row]
        column = len(line[:start].decode(errors="replace"))
        stop = len(line[:end].decode(errors="replace")) if end_row == row else len(self._lines[row].rstrip())
        return Span(line=row + 1, column=column + 1, length=max(1, stop - column))

    def _search(self, path: Path) -> Span | None:
        """Find a header or a bare key by reading lines: right for plain files, better than nothing for others."""
        names = [str(part) for part in path if isinstance(part, str)]
        table: list[str] = []
        for number, line in enumerate(self._lines, 1):
            header = _HEADER.match(line)
            if header:
                table = [part.strip().strip("\"'") for part in header[1].split(".")]
                if table[: len(names)] == names:
                    return Span(line=number, column=header.start(1) + 1, length=len(header[1].rstrip()))
            elif table == names[:-1] and names:
                key = re.match(rf"\s*([\"']?){re.escape(names[-1])}\1\s*[=.]", line)
                if key:
                    return Span(line=number, column=len(line) - len(line.lstrip()) + 1, length=len(names[-1]))
        return None


def _key_of(node: Node) -> list[tuple[str, Node]] | None:
    # The grammar names no fields: the key is the first child that looks like one.
    for child in node.children:
        if child.type in ("bare_key", "quoted_key", "dotted_key"):
            names = list(_names(child))
            return names if all(name is not None for name, _ in names) else None  # type: ignore[return-value]
    return None


def _names(node: Node) -> Iterator[tuple[str | None, Node]]:
    if node.type == "dotted_key":
        for child in node.children:
            if child.is_named:
                yield from _names(child)
    else:
        text = (node.text or b"").decode(errors="replace")
        yield (text if node.type == "bare_key" else _unquoted(text)), node


def _unquoted(text: str) -> str | None:
    try:
        value = tomllib.loads(f"key = {text}")["key"]
    except tomllib.TOMLDecodeError:
        return None
    return str(value)


def _value_of(node: Node) -> Node | None:
    after = False
    for child in node.children:
        if child.type == "=":
            after = True
        elif after and child.is_named and child.type != "comment":
            return child
    return None
