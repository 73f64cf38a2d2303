"""Tests for `rag.parse`, on real files of every kind."""

from __future__ import annotations

from pathlib import Path

import pytest
from sage_rag.parse import Parse
from sage_rag.records import Document, DocumentError, SourceFile


def parse(file: Path | str, **options: int) -> Document:
    return Parse(**options)(SourceFile(path=str(file), digest="d"))


def problem(file: Path | str, **options: int) -> str:
    with pytest.raises(DocumentError) as caught:
        parse(file, **options)
    return str(caught.value).partition("\n")[0]


def pdf(*pages: str, title: str = "", encrypt: str = "") -> bytes:
    """A valid PDF with one line of Helvetica a page, its cross-reference table in order."""
    objects = ["<< /Type /Catalog /Pages 2 0 R >>", ""]
    objects.append("<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica >>")
    objects.append(f"<< /Title ({title}) >>")
    kids = []
    for text in pages:
        stream = f"BT /F1 12 Tf 72 720 Td ({text}) Tj ET" if text else ""
        objects.append(f"<< /Length {len(stream)} >>\nstream\n{stream}\nendstream")
        kids.append(f"{len(objects) + 1} 0 R")
        objects.append(
            "<< /Type /Page /Parent 2 0 R /MediaBox [0 0 612 792] /Resources << /Font << /F1 3 0 R >> >> "
            f"/Contents {len(objects)} 0 R >>"
        )
    objects[1] = f"<< /Type /Pages /Count {len(pages)} /Kids [{' '.join(kids)}] >>"
    if encrypt:
        objects.append(f"<< /Filter /Standard /V 1 /R 2 /P -4 /O <{'11' * 32}> /U <{'22' * 32}> >>")
    body, places = "%PDF-1.4\n", []
    for number, content in enumerate(objects, 1):
        places.append(len(body))
        body += f"{number} 0 obj\n{content}\nendobj\n"
    table = "".join(f"{place:010} 00000 n \n" for place in places)
    locked = f"/Encrypt {len(objects)} 0 R /ID [<00> <00>] " if encrypt else ""
    trailer = f"<< /Size {len(objects) + 1} /Root 1 0 R /Info 4 0 R {locked}>>"
    table = f"xref\n0 {len(objects) + 1}\n0000000000 65535 f \n{table}"
    return f"{body}{table}trailer\n{trailer}\nstartxref\n{len(body)}\n%%EOF\n".encode("latin-1")


def test_text_is_taken_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes("\ufeffOne\r\ntwo – drei\r".encode())
    assert parse(tmp_path / "a.txt") == Document(text="One\ntwo – drei\n", title="")


@pytest.mark.parametrize(
    ("source", "title"),
    [
        ("# Leases #\n\ntext", "Leases"),
        ("intro\n\nLeases\n======\n", "Leases"),
        ("---\ntitle: 'Of leases'\n---\n# Other\n", "Of leases"),
        ("---\nauthor: x\n---\n# Leases\n", "Leases"),
        ("---\ntitle:\nauthor: x\n---\n# Leases\n", "Leases"),
        ("# C#\n", "C#"),
        ("# On C# ##  \n", "On C#"),
        ("#\n\n# #\ntext\n\n# Leases\n", "Leases"),
        ("#no heading\n## Below\n", ""),
        ("no heading", ""),
    ],
)
def test_markdown_keeps_its_text_and_has_a_title(tmp_path: Path, source: str, title: str) -> None:
    (tmp_path / "a.md").write_text(source)
    assert parse(tmp_path / "a.md") == Document(text=source, title=title)


def test_a_heading_with_a_wide_gap_is_read_in_no_time(tmp_path: Path) -> None:
    # A pattern that tries every way to part the gap would take hours, which the suite's time limit ends.
    (tmp_path / "a.md").write_text("# a" + " " * 20_000 + "b")
    assert parse(tmp_path / "a.md").title.split() == ["a", "b"]


def test_html_becomes_paragraphs_with_markdown_headings(tmp_path: Path) -> None:
    (tmp_path / "a.html").write_text(
        """<!doctype html><html><head><title> The
        title </title><style>p { color: red }</style></head><body><nav>Home</nav>
        <h1>Leases</h1><p>A worker   holds a <b>le</b>ase &amp; renews it.</p><p>Second<br>line</p>
        <script>alert(1)</script><ul><li>one<li>two <i>and</i></ul><pre>a = 1
b = 2</pre><table><tr><td>x<td>y<tr><td>z</table><div>out<p>in</p>after</div></body></html>"""
    )
    document = parse(tmp_path / "a.html")
    assert document.title == "The title"
    assert document.text == (
        "# Leases\n\nA worker holds a lease & renews it.\n\nSecond\nline\n\n- one\n- two and\n\na = 1\nb = 2\n\n"
        "x y\nz\n\nout\n\nin\n\nafter"
    )


def test_html_without_a_title_takes_its_first_heading(tmp_path: Path) -> None:
    (tmp_path / "a.htm").write_text("<p>x</p><h1>Lea<i>ses</i></h1>")
    assert parse(tmp_path / "a.htm").title == "Leases"


def test_pdf_pages_and_title(tmp_path: Path) -> None:
    (tmp_path / "a.pdf").write_bytes(pdf("A lease ends.", "", "Another worker claims.", title="Of leases"))
    assert parse(tmp_path / "a.pdf") == Document(text="A lease ends.\n\nAnother worker claims.", title="Of leases")


def test_a_pdf_is_known_by_its_content(tmp_path: Path) -> None:
    (tmp_path / "report").write_bytes(pdf("A lease ends."))
    assert parse(tmp_path / "report").text == "A lease ends."


def test_jsonl_lines(tmp_path: Path) -> None:
    file = tmp_path / "corpus.jsonl"
    file.write_text('{"_id": "x#7", "title": "One", "text": "first"}\n{"text": "second"}\n')
    reader = Parse()
    assert reader(SourceFile(path=f"{file}#2", digest="d")) == Document(text="second", title="")
    file.write_text('{"_id": "x", "title": "One", "text": "changed and longer"}\n')
    assert reader(SourceFile(path=f"{file}#x", digest="d")).text == "changed and longer"
    with pytest.raises(DocumentError, match="#2: is no longer in the file"):
        reader(SourceFile(path=f"{file}#2", digest="d"))


def test_a_file_whose_name_looks_like_a_line_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl#1").write_text("plain")
    assert parse(tmp_path / "a.jsonl#1").text == "plain"


def test_a_record_may_arrive_as_a_dict(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("x")
    assert Parse()({"path": str(tmp_path / "a.txt"), "digest": "d"}).text == "x"  # type: ignore[arg-type]


def test_documents_that_cannot_be_used_are_named_with_the_reason(tmp_path: Path) -> None:
    cases: dict[str, tuple[bytes, str]] = {
        "empty.md": (b"", "is empty"),
        "blank.txt": (b" \n\t", "holds no text"),
        "image.txt": (b"\x89PNG\r\n\0\0", "is binary, not text"),
        "latin.txt": ("eins\nzw\xe4i".encode("latin-1"), "is not UTF-8: byte 0xe4 in line 2"),
        "scan.pdf": (pdf("", ""), "holds no text"),
        "broken.pdf": (b"%PDF-1.4\n" + b"junk" * 20, "is not a readable PDF: "),
        "locked.pdf": (pdf("x", encrypt="yes"), "needs a password"),
        "script.html": (b"<script>x</script>", "holds no text"),
        "fields.jsonl#1": (b"", "has no field 'text'"),
        "fields.jsonl#9": (b"", "is no longer in the file"),
    }
    (tmp_path / "fields.jsonl").write_text('{"title": "no text"}\n')
    for name, (content, expected) in cases.items():
        if "#" not in name:
            (tmp_path / name).write_bytes(content)
        assert problem(tmp_path / name).startswith(f"{tmp_path / name}: {expected}"), name


def test_a_huge_document_is_not_read(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("x" * 1001)
    assert (
        problem(tmp_path / "a.txt", max_bytes=1000)
        == f"{tmp_path / 'a.txt'}: is 1,001 bytes, more than max_bytes = 1,000"
    )
    (tmp_path / "a.jsonl").write_text('{"text": "%s"}' % ("x" * 1000))
    assert problem(f"{tmp_path / 'a.jsonl'}#1", max_bytes=1000).endswith(
        "#1: is 1,012 bytes, more than max_bytes = 1,000"
    )


def test_a_missing_file_and_a_folder(tmp_path: Path) -> None:
    assert problem(tmp_path / "gone.md") == f"{tmp_path / 'gone.md'}: cannot be read: No such file or directory"
    assert problem(tmp_path) == f"{tmp_path}: cannot be read: Is a directory"
    assert problem(tmp_path / "gone.jsonl#1").endswith("gone.jsonl: cannot be read: No such file or directory")
