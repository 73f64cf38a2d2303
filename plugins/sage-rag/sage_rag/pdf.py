"""PDF to text, page after page."""

from __future__ import annotations

import re
import threading

import pypdfium2  # type: ignore[import-untyped]

from sage_rag.records import Document, DocumentError

#: PDFium keeps state for the whole process: two threads must not be inside it together.
_pdfium = threading.Lock()


def parse_pdf(content: bytes, path: str) -> Document:
    """Take the text of a PDF's pages; a page without text adds nothing."""
    with _pdfium:
        try:
            document = pypdfium2.PdfDocument(content)
        except pypdfium2.PdfiumError as error:
            problem = "needs a password" if "assword" in str(error) else f"is not a readable PDF: {error}"
            raise DocumentError(path, problem) from None
        try:
            pages = [_page(document, number) for number in range(len(document))]
            title = document.get_metadata_value("Title").strip()
        except pypdfium2.PdfiumError as error:
            raise DocumentError(path, f"is a damaged PDF: {error}") from None
        finally:
            document.close()
    return Document(text="\n\n".join(page for page in pages if page), title=title)


def _page(document: pypdfium2.PdfDocument, number: int) -> str:
    page = document[number]
    text = page.get_textpage()
    # PDFium marks a word broken at a line's end with U+FFFE or U+0002; joining it restores the word.
    plain = re.sub("[\ufffe\x02](\r\n)?", "", text.get_text_bounded())
    text.close()
    page.close()
    return plain.replace("\r\n", "\n").replace("\x00", "").strip()
