"""The cabinet: files by id, and none by anything else."""

from __future__ import annotations

from pathlib import Path

import pytest
from sage_gateway.cabinet import Cabinet


def test_a_file_is_kept_until_it_is_deleted(tmp_path: Path) -> None:
    cabinet = Cabinet(tmp_path / "files")
    assert list(cabinet.all()) == []
    one = cabinet.keep(b"one", filename="a.jsonl", purpose="batch", tenant="t")
    assert cabinet.find(one.id) == one
    assert cabinet.data(one.id).read_bytes() == b"one"
    assert list(cabinet.all()) == [one]
    cabinet.delete(one.id)
    assert cabinet.find(one.id) is None
    assert list(cabinet.all()) == []


def test_what_a_batch_left_is_adopted_once(tmp_path: Path) -> None:
    cabinet, left = Cabinet(tmp_path / "files"), tmp_path / "output.jsonl"
    left.write_bytes(b"first")
    made = cabinet.adopt(left, "file-1-output", filename="o", purpose="batch_output", tenant="t")
    left.write_bytes(b"changed")
    assert cabinet.adopt(left, "file-1-output", filename="o", purpose="batch_output", tenant="t") == made
    assert cabinet.data(made.id).read_bytes() == b"first"
    assert made.bytes == 5


@pytest.mark.parametrize("id", ["", "x", "file-../../etc", "file-\0", "file-" + "x" * 300, "..", "file-none"])
def test_an_id_leads_to_no_other_place(tmp_path: Path, id: str) -> None:
    assert Cabinet(tmp_path).find(id) is None
