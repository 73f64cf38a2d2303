"""Tests for PDF to text; test_parse.py reads PDFs from files."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest
from sage_rag.pdf import parse_pdf
from sage_rag.records import Document, DocumentError


def pdf(*contents: str) -> bytes:
    """A PDF with one content stream a page; it has no cross-reference table, so a reader has to rebuild it."""
    kids = " ".join(f"{10 + 2 * page} 0 R" for page in range(len(contents)))
    objects = {
        1: "<< /Type /Catalog /Pages 2 0 R >>",
        2: f"<< /Type /Pages /Count {len(contents)} /Kids [{kids}] >>",
        3: "<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica >>",
        4: "<< /Title (  Of leases ) >>",
    }
    for page, content in enumerate(contents):
        objects[10 + 2 * page] = (
            "<< /Type /Page /Parent 2 0 R /MediaBox [0 0 612 792] /Resources << /Font << /F1 3 0 R >> >> "
            f"/Contents {11 + 2 * page} 0 R >>"
        )
        objects[11 + 2 * page] = f"<< /Length {len(content)} >>\nstream\n{content}\nendstream"
    body = "".join(f"{number} 0 obj\n{content}\nendobj\n" for number, content in objects.items())
    return f"%PDF-1.4\n{body}trailer\n<< /Size 99 /Root 1 0 R /Info 4 0 R >>\n%%EOF\n".encode("latin-1")


def page(*lines: str) -> str:
    """A page's content: lines of text, one below another."""
    return "BT /F1 12 Tf 72 720 Td " + " 0 -14 Td ".join(f"({line}) Tj" for line in lines) + " ET"


def test_pages_are_paragraphs_and_lines_stay_lines() -> None:
    document = parse_pdf(pdf(page("one", "two"), "", page("three")), "a.pdf")
    assert document == Document(text="one\ntwo\n\nthree", title="Of leases")


def test_a_word_broken_at_the_end_of_a_line_is_whole_again() -> None:
    assert parse_pdf(pdf(page("the com-", "puter ends")), "a.pdf").text == "the computer ends"


def test_a_pdf_without_text_gives_none() -> None:
    assert parse_pdf(pdf("", ""), "a.pdf") == Document(text="", title="Of leases")


@pytest.mark.parametrize("content", [b"", b"%PDF-1.4", b"text", pdf(page("x"))[:40]], ids=len)
def test_what_is_no_pdf_is_named(content: bytes) -> None:
    with pytest.raises(DocumentError, match=r"^docs/a\.pdf: is not a readable PDF: "):
        parse_pdf(content, "docs/a.pdf")


def test_threads_read_their_own_documents() -> None:
    sources = {f"text {number}": pdf(*[page(f"text {number}")] * 3) for number in range(8)}
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda content: parse_pdf(content, "a.pdf").text, sources.values()))
    assert found == ["\n\n".join([text] * 3) for text in sources]
