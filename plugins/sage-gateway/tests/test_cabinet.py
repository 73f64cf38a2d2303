"""The cabinet: files by id, and none by anything else."""

from __future__ import annotations

import os
import resource
import time
from pathlib import Path

import pytest
from sage_gateway.cabinet import ABANDONED, Cabinet, share


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
    left.unlink()
    left.write_bytes(b"changed")
    assert cabinet.adopt(left, "file-1-output", filename="o", purpose="batch_output", tenant="t") == made
    assert cabinet.data(made.id).read_bytes() == b"first"
    assert made.bytes == 5


def test_a_file_that_cannot_be_written_leaves_nothing(tmp_path: Path) -> None:
    cabinet = Cabinet(tmp_path / "files")
    one = cabinet.keep(b"one", filename="a", purpose="batch", tenant="t")
    most, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    # What a full disk is to a program.
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, hard))
    try:
        with pytest.raises(OSError, match="File too large"):
            cabinet.keep(b" " * (2 << 20), filename="b", purpose="batch", tenant="t")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (most, hard))
    assert [each.name for each in cabinet.folder.iterdir()] == [one.id]


def test_what_is_old_or_half_made_is_removed(tmp_path: Path) -> None:
    cabinet = Cabinet(tmp_path / "files")
    one = cabinet.keep(b"one", filename="a", purpose="batch", tenant="t")
    for name, age in (("file-half", 2 * ABANDONED), ("file-young", 0.0)):
        folder = cabinet.folder / name
        folder.mkdir()
        (folder / "data").touch()
        os.utime(folder, (time.time() - age, time.time() - age))
    assert cabinet.prune(one.created_at) == []
    assert {each.name for each in cabinet.folder.iterdir()} == {one.id, "file-young"}
    assert cabinet.prune(one.created_at + 1) == [one.id]
    assert cabinet.find(one.id) is None


def test_a_shared_file_is_one_file_with_two_names(tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    first.write_bytes(b"x")
    share(first, second)
    first.unlink()
    assert second.read_bytes() == b"x"
    with pytest.raises(FileNotFoundError):
        share(first, second)
    assert [each.name for each in tmp_path.iterdir()] == ["second"]


@pytest.mark.parametrize(
    "id",
    [
        "",
        "x",
        "file-",
        "file-..",
        "file-../../etc",
        "file-\0",
        "file-é",
        "file-" + "x" * 300,
        "..",
        "file-none",
        "file-a\n",
    ],
)
def test_an_id_leads_to_no_other_place(tmp_path: Path, id: str) -> None:
    assert Cabinet(tmp_path).find(id) is None
