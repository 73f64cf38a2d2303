"""`rag.parse`: text, Markdown, HTML, PDF and JSONL lines become text with a title."""

from __future__ import annotations

import re
from pathlib import Path

import msgspec

from sage_core import operator
from sage_rag.jsonl import Line, document_of, lines_of
from sage_rag.records import Document, DocumentError, SourceFile

_HTML = frozenset({".html", ".htm", ".xhtml"})
_FRONT_MATTER = re.compile(r"\A---\n(.*?)\n---\n", re.DOTALL)
_ATX_OR_SETTEXT = re.compile(r"^#[ \t]+(\S.*)|^(\S.*)\n=+[ \t]*$", re.MULTILINE)


@operator("rag.parse")
class Parse:
    """Reads one document a row; a document it cannot use is an error that names it and says why.

    The kind is told by content for PDF, by suffix for HTML and Markdown; all else is UTF-8 text. Line ends become
    ``\\n``. HTML headings are written as Markdown ones, so that `rag.chunk` can cut at either.
    """

    def __init__(self, *, max_bytes: int = 20_000_000) -> None:
        self._max_bytes = max_bytes
        # The lines of the JSONL file read last: rows of one file come one after the other.
        self._lines: tuple[str, tuple[int, int], dict[str, Line]] = ("", (0, 0), {})

    def __call__(self, file: SourceFile) -> Document:
        path = msgspec.convert(file, SourceFile, from_attributes=True).path
        container, mark, name = path.rpartition("#")
        if mark and container.endswith(".jsonl") and not Path(path).exists():
            document = document_of(self._line(container, name), path)
        else:
            document = self._parse(path, self._read(path))
        if not document.text.strip():
            raise DocumentError(path, "holds no text", "a scanned PDF needs text recognition (OCR) first")
        return document

    def _read(self, path: str) -> bytes:
        try:
            size = Path(path).stat().st_size
            if size > self._max_bytes:
                raise DocumentError(path, f"is {size:,} bytes, more than max_bytes = {self._max_bytes:,}")
            content = Path(path).read_bytes()
        except OSError as error:
            raise DocumentError(path, f"cannot be read: {error.strerror}") from None
        if not content:
            raise DocumentError(path, "is empty")
        return content

    def _parse(self, path: str, content: bytes) -> Document:
        if content.startswith(b"%PDF-"):
            # pypdfium2 is needed for PDFs only, and `sage check` imports this module.
            from sage_rag.pdf import parse_pdf  # noqa: PLC0415

            return parse_pdf(content, path)
        text = _decode(content, path)
        suffix = Path(path).suffix.lower()
        if suffix in _HTML:
            # selectolax is needed for HTML only, and `sage check` imports this module.
            from sage_rag.html import parse_html  # noqa: PLC0415

            return parse_html(text)
        return Document(text=text, title=_title(text) if suffix in {".md", ".markdown"} else "")

    def _line(self, container: str, name: str) -> Line:
        try:
            stat = Path(container).stat()
        except OSError as error:
            raise DocumentError(container, f"cannot be read: {error.strerror}") from None
        version = (stat.st_mtime_ns, stat.st_size)
        if self._lines[:2] != (container, version):
            lines = {line.id: line for line in lines_of(Path(container), container)}
            self._lines = (container, version, lines)
        lines = self._lines[2]
        if name not in lines:
            raise DocumentError(f"{container}#{name}", "is no longer in the file", "run the workflow again")
        if len(lines[name].data) > self._max_bytes:
            raise DocumentError(
                f"{container}#{name}", f"is {len(lines[name].data):,} bytes, more than max_bytes = {self._max_bytes:,}"
            )
        return lines[name]


def _decode(content: bytes, path: str) -> str:
    if b"\0" in content[:8192]:
        raise DocumentError(path, "is binary, not text", "leave it out with the option `pattern` of rag.files")
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise DocumentError(
            path, f"is not UTF-8: byte 0x{content[error.start]:02x} in line {line}", "convert it: iconv -t UTF-8"
        ) from None
    return text.replace("\r\n", "\n").replace("\r", "\n")


def _title(text: str) -> str:
    front = _FRONT_MATTER.match(text)
    if front:
        named = re.search(r"^title:[ \t]*(\S.*)", front[1], re.MULTILINE)
        if named:
            return named[1].rstrip().strip("'\"")
    for heading in _ATX_OR_SETTEXT.finditer(text, front.end() if front else 0):
        if heading[2]:
            return heading[2].rstrip()
        line = heading[1].rstrip()
        bare = line.rstrip("#")
        # Marks may close a heading after a space; those of "C#" belong to it.
        line = bare.rstrip() if not bare or bare[-1].isspace() else line
        if line:
            return line
    return ""
