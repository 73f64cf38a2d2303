"""JSONL documents: one line is one document, named ``FILE.jsonl#ID``."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import msgspec

from sage_rag.records import Document, DocumentError


class _Fields(msgspec.Struct):
    _id: str | int | None = None
    id: str | int | None = None
    title: str | None = None
    text: str | None = None


class Line(msgspec.Struct, frozen=True):
    """One line and the name its document goes by: its ``_id``, else its ``id``, else its number from 1."""

    id: str
    data: bytes


def lines_of(file: Path, path: str) -> Iterator[Line]:
    """Read the lines of a JSONL file in order, blank ones left out; two of one name are an error."""
    seen: dict[str, int] = {}
    try:
        content = file.read_bytes()
    except OSError as error:
        raise DocumentError(path, f"cannot be read: {error.strerror}") from None
    for number, data in enumerate(content.removeprefix(b"\xef\xbb\xbf").split(b"\n"), 1):
        if not data.strip():
            continue
        fields = _decode(data, f"{path}, line {number}")
        own = fields._id if fields._id is not None else fields.id
        name = str(number if own is None else own)
        if name in seen:
            raise DocumentError(
                path, f"lines {seen[name]} and {number} are both named {name!r}", "make the ids distinct"
            )
        seen[name] = number
        yield Line(name, data)


def document_of(line: Line, path: str) -> Document:
    """The document a line holds."""
    fields = _decode(line.data, path)
    if fields.text is None:
        raise DocumentError(path, "has no field 'text'", 'each line is an object such as {"id": …, "text": …}')
    return Document(text=fields.text, title=fields.title or "")


def _decode(data: bytes, where: str) -> _Fields:
    try:
        return msgspec.json.decode(data, type=_Fields)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise DocumentError(where, f"is not a document: {error}") from None
