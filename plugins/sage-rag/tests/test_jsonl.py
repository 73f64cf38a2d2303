"""Tests for documents that are lines of a JSONL file."""

from __future__ import annotations

from pathlib import Path

import pytest
from sage_rag.jsonl import Line, document_of, lines_of
from sage_rag.records import Document, DocumentError


def read(tmp_path: Path, content: bytes) -> list[Line]:
    file = tmp_path / "c.jsonl"
    file.write_bytes(content)
    return list(lines_of(file, "c.jsonl"))


def test_a_line_is_named_by_its_id_else_by_its_number(tmp_path: Path) -> None:
    lines = read(tmp_path, b'{"_id": "a", "id": "b"}\n{"id": 0}\n\n \t\n{"text": "x"}\r\n{"_id": null, "id": "z"}')
    assert [line.id for line in lines] == ["a", "0", "5", "z"]
    assert lines[2].data == b'{"text": "x"}\r'


def test_a_byte_order_mark_is_no_part_of_the_first_line(tmp_path: Path) -> None:
    assert [line.id for line in read(tmp_path, b'\xef\xbb\xbf{"id": "a"}\n')] == ["a"]


@pytest.mark.parametrize("content", [b"", b"\n\n", b"  \r\n"], ids=repr)
def test_blank_lines_hold_no_document(tmp_path: Path, content: bytes) -> None:
    assert read(tmp_path, content) == []


def test_two_lines_of_one_name_are_an_error_even_when_one_is_named_by_its_number(tmp_path: Path) -> None:
    with pytest.raises(DocumentError, match=r"^c\.jsonl: lines 1 and 2 are both named '2'\n  help: make the ids dis"):
        read(tmp_path, b'{"id": 2}\n{"text": "x"}\n')


@pytest.mark.parametrize("line", [b"{", b"[1]", b'{"id": [1]}', b'{"text": 5}', b'{"id": "\xff"}'], ids=repr)
def test_a_line_that_is_no_document_is_named_by_file_and_number(tmp_path: Path, line: bytes) -> None:
    with pytest.raises(DocumentError, match=r"^c\.jsonl, line 2: is not a document: "):
        read(tmp_path, b'{"text": "x"}\n' + line)


def test_a_file_that_cannot_be_read_is_named_as_it_was_given(tmp_path: Path) -> None:
    with pytest.raises(DocumentError, match=r"^docs/c\.jsonl: cannot be read: No such file"):
        list(lines_of(tmp_path / "c.jsonl", "docs/c.jsonl"))


def test_a_document_is_its_text_and_title() -> None:
    assert document_of(Line("1", b'{"text": "x", "title": "T", "more": [1]}'), "c") == Document(text="x", title="T")
    assert document_of(Line("1", b'{"text": "", "title": null}'), "c") == Document(text="", title="")
    with pytest.raises(DocumentError, match=r"^c#1: has no field 'text'\n  help: each line is an object"):
        document_of(Line("1", b'{"title": "T"}'), "c#1")
