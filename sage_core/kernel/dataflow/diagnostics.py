"""What is wrong in a workflow file: collected whole, then rendered as ``file:line:col``, the line, a caret and help."""

from __future__ import annotations

import os
import unicodedata
from collections.abc import Mapping, Sequence
from pathlib import Path as FilePath
from typing import Any, Literal

from sage_core.common.errors import BadValue, suggest
from sage_core.common.records import Record
from sage_core.kernel.dataflow.spans import Path, Span, Spans

Part = Literal["key", "value"]


class Diagnostic(Record):
    """One thing that is wrong, by its path in the merged document."""

    path: Path
    message: str
    help: str = ""
    #: Whether the caret goes under the key or the value.
    part: Part = "value"
    #: The file that `path` is in, where it is not the one that has the last word on the path.
    file: str = ""
    #: The file that defines the path too, and came first.
    first: str = ""


class Problems(list[Diagnostic]):
    """The diagnostics of one check, in the order they were found."""

    def add(self, path: Path, message: str, help: str = "", part: Part = "value", **more: Any) -> None:
        """Report one problem, once; `more` are further fields of `Diagnostic`."""
        found = Diagnostic(path=path, message=message, help=help, part=part, **more)
        if found not in self:
            self.append(found)

    def bad(self, path: Path, error: BadValue, part: Part = "value") -> None:
        """Report what a reader of durations, templates, expressions or references found."""
        self.add(path, error.problem, error.help, part)


def one_of(name: str, candidates: Sequence[str], what: str = "known") -> str:
    """Help for a name that is not there: the closest one, and all of them when they are few."""
    close = suggest(name, candidates).strip()
    shown = ", ".join(candidates[:12]) + (", …" if len(candidates) > 12 else "")
    return " ".join(part for part in (close, f"{what}: {shown}" if candidates else f"{what}: none") if part)


def render(file: str, span: Span | None, line: str, message: str, help: str = "") -> str:
    """Lay out one diagnostic; without a span only the file is named."""
    if span is None:
        return f"{file}: {message}" + (f"\n  help: {help}" if help else "")
    gutter = f"{span.line:>4} | "
    before = line[: span.column - 1]
    marked = line[span.column - 1 : span.column - 1 + span.length]
    # Tabs are kept so that the caret line is as wide as the line above in any terminal.
    indent = "".join("\t" if char == "\t" else " " * _width(char) for char in before)
    caret = "^" * max(1, sum(_width(char) for char in marked))
    text = f"{file}:{span}: {message}\n{gutter}{line}\n{' ' * (len(gutter) - 2)}| {indent}{caret}"
    return text + (f"\n  help: {help}" if help else "")


def shown_path(path: FilePath) -> str:
    """A path as people write it: relative to the current folder when below it."""
    try:
        return str(path.relative_to(FilePath.cwd()))
    except (ValueError, OSError):
        return str(path)


class Places:
    """Turns diagnostics into text for the files of one document; parses each file at most once, and only then."""

    def __init__(self, texts: Mapping[str, str]) -> None:
        self._texts = texts
        self._spans: dict[str, Spans] = {}

    def span(self, file: str, path: Path, part: Part) -> Span:
        """Where a path of a file stands."""
        if file not in self._spans:
            self._spans[file] = Spans(self._texts[file])
        return self._spans[file].find(path, part)

    def render(self, file: str, span: Span, message: str, help: str = "") -> str:
        """Lay out one diagnostic at a place of a file."""
        lines = self._texts[file].split("\n")
        line = lines[span.line - 1] if span.line <= len(lines) else ""
        return render(shown_path(FilePath(file)), span, line, message, help)


def dotted(path: Path) -> str:
    """A path as text, for documents that have no file: ``steps.a.in.text``."""
    return ".".join(str(part) for part in path).replace(os.linesep, " ")


def _width(char: str) -> int:
    if unicodedata.combining(char) or unicodedata.category(char) in ("Cf", "Me", "Mn"):
        return 0
    return 2 if unicodedata.east_asian_width(char) in ("W", "F") else 1
