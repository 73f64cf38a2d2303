"""Reads TOML text, and says in the user's terms what tomllib says obscurely or without naming the key."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path as FilePath
from typing import Any

from sage_core.common.errors import InvalidWorkflow, UsageError
from sage_core.kernel.dataflow.diagnostics import Places, dotted, shown_path
from sage_core.kernel.dataflow.spans import Path, Span, Spans

#: A larger file is no workflow.
LIMIT = 4_000_000

_AT = re.compile(r" \(at (?:line (\d+), column (\d+)|end of document)\)$")
_TWICE = ("Cannot declare", "Cannot overwrite", "Duplicate inline", "Cannot redefine", "Cannot mutate")
_NOUNS = {"steps": "step", "params": "param", "models": "model", "outputs": "output", "profile": "profile"}


def read_text(path: FilePath) -> str:
    """Read a workflow file with ``\\n`` line ends; raises `UsageError` or `InvalidWorkflow`."""
    shown = shown_path(path)
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        raise UsageError(f"{shown}: no such file", "name a workflow file, such as workflow.toml") from None
    except IsADirectoryError:
        raise UsageError(f"{shown} is a folder", f"name the file in it, such as {shown}/workflow.toml") from None
    except OSError as error:
        raise UsageError(f"{shown}: cannot be read: {error.strerror}") from None
    if len(data) > LIMIT:
        raise UsageError(f"{shown} has {len(data):,} bytes; a workflow file has at most {LIMIT:,}")
    try:
        # As tomllib does before it counts lines.
        return data.decode("utf-8").replace("\r\n", "\n")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise InvalidWorkflow(
            [f"{shown}:{line}:1: not UTF-8: byte 0x{data[error.start]:02x}\n  help: save the file as UTF-8"]
        ) from None


def parse(file: str, text: str) -> dict[str, Any]:
    """Parse one file's text; raises `InvalidWorkflow` with the one syntax error that tomllib stops at."""
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        span, message, help = explain(text, str(error))
    except RecursionError:
        span, message, help = Span(line=1, column=1), "tables or arrays are nested too deeply", ""
    except ValueError as error:  # an integer of thousands of digits
        span, message, help = Span(line=1, column=1), f"not valid TOML: {str(error).partition(';')[0]}", ""
    raise InvalidWorkflow([Places({file: text}).render(file, span, message, help)])


def explain(text: str, error: str) -> tuple[Span, str, str]:
    """Place, message and help for tomllib's message."""
    at = _AT.search(error)
    problem = error[: at.start()] if at else error
    lines = text.split("\n")
    if at and at[1]:
        span = Span(line=int(at[1]), column=int(at[2]))
    else:
        last = len(lines) - 1 if len(lines) > 1 and not lines[-1] else len(lines)
        span = Span(line=last, column=len(lines[last - 1]) + 1)
    if text.startswith("\ufeff"):
        return Span(line=1, column=1), "the file starts with a byte order mark", "save it as UTF-8 without one"
    if problem.startswith(_TWICE):
        return _twice(text, span, problem)
    line = lines[span.line - 1]
    rest = line[span.column - 1 :]
    opened = _open_table(lines, span)
    if opened and (not rest.strip() or rest.lstrip().startswith("#")):
        return span, "an inline table { … } must be written on one line", opened
    if opened and rest.startswith("}"):
        return span, "an inline table { … } must not end with a comma", "remove the comma before }"
    if problem == "Invalid value" and (word := re.match(r"(True|False|None|null|nil)\b", rest)):
        instead = {"True": "write true", "False": "write false"}.get(word[1], "TOML has no null: leave the key out")
        return _wide(span, word[1]), f"{word[1]} is not a TOML value", instead
    if problem == "Invalid value" and (word := re.match(r"[A-Za-z_$][^\s,\]}#]*", rest)):
        return _wide(span, word[0]), f"{word[0]} is not a TOML value", f'a text is quoted: "{word[0]}"'
    if problem.startswith("Illegal character '\\n'") or problem == 'Expected "\'"':
        return (
            span,
            "the text is not closed on its line",
            "end it with its quote, or write three quotes around several lines",
        )
    if problem == "Invalid value" and at and not at[1]:
        return span, "the file ends where a value is expected", ""
    if problem == "Invalid value" and not rest.partition("#")[0].strip():
        return span, "a value is missing", 'write key = "value"'
    return span, f"not valid TOML: {problem[:1].lower()}{problem[1:]}", ""


def describe(path: Path) -> str:
    """A path as people call it: ``step 'a'``, else ``key 'a.b'``."""
    if len(path) == 2 and path[0] in _NOUNS:
        return f"{_NOUNS[str(path[0])]} {path[1]!r}"
    return f"key {dotted(path)!r}"


def _twice(text: str, span: Span, problem: str) -> tuple[Span, str, str]:
    repeated = Spans(text).repeated
    if not repeated:
        return span, f"not valid TOML: {problem[:1].lower()}{problem[1:]}", "a key or table is defined twice"
    path, first, second = next((found for found in repeated if found[2].line == span.line), repeated[0])
    return second, f"{describe(path)} is defined twice, first at {first}", "keep one of them, or rename one"


def _open_table(lines: list[str], span: Span) -> str:
    """Help for an inline table that is still open at `span`; empty when there is none."""
    before = [*lines[: span.line - 1], lines[span.line - 1][: span.column - 1]]
    start = next((number for number in range(len(before) - 1, -1, -1) if "{" in before[number]), None)
    if start is None or sum(line.count("{") - line.count("}") for line in before[start:]) <= 0:
        return ""
    key = re.match(r"\s*([A-Za-z0-9_.-]+)\s*=\s*\{", before[start])
    header = next((found for line in before[start::-1] if (found := re.match(r"\s*\[([^\[\]]+)\]", line))), None)
    name = ".".join(part for part in (header and header[1], key and key[1]) if part)
    return f"join its lines, or make it a table of its own: [{name}]" if key else "join its lines"


def _wide(span: Span, word: str) -> Span:
    return Span(line=span.line, column=span.column, length=len(word))
