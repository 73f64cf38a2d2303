"""`rag.files`: lists documents and digests their content; it does not parse."""

from __future__ import annotations

import glob
import hashlib
import os
from collections.abc import Iterator
from fnmatch import fnmatch
from pathlib import Path

from sage_core import Context, UsageError, operator
from sage_rag.jsonl import lines_of
from sage_rag.records import SourceFile


@operator("rag.files", pure=False, paths=("path",))
def files(*, path: str, pattern: str = "*", hidden: bool = False, ctx: Context) -> Iterator[SourceFile]:
    """List a folder (recursively), a glob, a file, or the lines of a JSONL file, sorted by path.

    `pattern` is matched against each path below the folder (``*`` crosses ``/``); hidden files and folders are left
    out unless `hidden`. A file that cannot be read is listed all the same: the step that reads it reports why.
    """
    given = Path(os.path.abspath(path))
    if given.is_dir():
        found = sorted(_below(given, pattern, hidden), key=lambda file: file.parts)
    elif given.exists():
        found = [given]
    elif glob.has_magic(path):
        found = sorted(Path(name) for name in glob.glob(str(given), recursive=True, include_hidden=hidden))
        found = [file for file in found if file.is_file()]
    else:
        raise UsageError(f"{shown(given)} does not exist", "give a folder, a file, or a glob such as 'docs/**/*.md'")
    if not found:
        ctx.warn(f"{shown(given)}: no file matches {pattern!r}")
    whole = [file for file in found if given.is_dir() or file.suffix != ".jsonl"]
    digests = dict(zip(whole, _digests(whole, ctx), strict=True))
    for file in found:
        if file in digests:
            yield SourceFile(path=shown(file), digest=digests[file])
            continue
        for line in lines_of(file, shown(file)):
            yield SourceFile(path=f"{shown(file)}#{line.id}", digest=hashlib.sha256(line.data).hexdigest())


def shown(file: Path) -> str:
    """The path as people see it: relative to the current folder when below it."""
    here = Path.cwd()
    return str(file.relative_to(here)) if file.is_relative_to(here) else str(file)


def _below(folder: Path, pattern: str, hidden: bool) -> Iterator[Path]:
    for parent, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if hidden or not name.startswith(".")]
        for name in names:
            file = Path(parent, name)
            # A dangling link is listed, so that it is reported; a pipe, socket or device is not a document.
            regular = file.is_file() or (file.is_symlink() and not file.exists())
            if (
                regular
                and (hidden or not name.startswith("."))
                and fnmatch(file.relative_to(folder).as_posix(), pattern)
            ):
                yield file


def _digests(found: list[Path], ctx: Context) -> list[str]:
    try:
        return ctx.digest_files(found)
    except OSError:
        return [_digest(file, ctx) for file in found]


def _digest(file: Path, ctx: Context) -> str:
    try:
        return ctx.digest_files([file])[0]
    except OSError as error:
        # Not a digest on purpose: the reader's result for an unreadable file is never that of a readable one.
        return f"unreadable:{error.errno}"
