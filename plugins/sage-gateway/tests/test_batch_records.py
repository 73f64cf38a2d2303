"""Batch records: kept as a whole, listed newest first, and stopped by the clock or by whoever cancels."""

from __future__ import annotations

import os
import time
from pathlib import Path

from msgspec.structs import replace
from sage_gateway.batch_records import CANCELLED, EXPIRED, BatchRecord, Counts, Ending, LineError, Progress, Shelf
from sage_gateway.cabinet import ABANDONED

BATCH = BatchRecord(
    id="batch_1",
    run="1",
    tenant="t",
    key="",
    endpoint="/v1/embeddings",
    input_file_id="file-1",
    completion_window="24h",
    created_at=100,
    expires_at=200,
    total=1,
)


def test_a_batch_is_stopped_by_its_window_or_its_owner() -> None:
    assert BATCH.stopped(199) == ""
    assert BATCH.stopped(200) == EXPIRED
    assert replace(BATCH, cancelling_at=150).stopped(199) == CANCELLED


def test_batches_are_listed_newest_first(tmp_path: Path) -> None:
    shelf = Shelf(tmp_path / "batches")
    assert list(shelf.all()) == []
    later = replace(BATCH, id="batch_2", errors=(LineError(code="empty_file", message="no lines"),))
    for batch in (BATCH, later):
        shelf.write(batch)
    # Made by a gateway that died before it knew what it was to be.
    (tmp_path / "batches" / "batch_3").mkdir()
    assert list(shelf.all()) == [later, BATCH]
    assert shelf.read("batch_1") == BATCH
    assert shelf.read("batch_9") is None
    shelf.record("batch_1").write_text("{")
    assert shelf.read("batch_1") is None


def test_an_id_leads_to_no_other_place(tmp_path: Path) -> None:
    shelf = Shelf(tmp_path)
    shelf.write(BATCH)
    for id in ("batch_", "batch_..", "batch_1/../batch_1", "batch_\U0001f600" * 20, "batch_1\0", "x", ""):
        assert shelf.read(id) is None


def test_a_batch_is_over_when_it_has_ended_or_was_never_begun() -> None:
    wrong = replace(BATCH, errors=(LineError(code="empty_file", message="no lines"),))
    ended = replace(BATCH, ended=Ending(status="completed", started_at=101, finished_at=150))
    assert (BATCH.over_since, wrong.over_since, ended.over_since) == (None, 100, 150)


def test_lines_are_counted_once_however_often_they_are_answered(tmp_path: Path) -> None:
    progress = Progress(tmp_path / "batch.json")
    assert progress.read() == Counts()
    for number, good in ((0, True), (1, False), (2, True), (1, True), (0, True), (3, False)):
        progress.add(number, good=good)
    assert progress.read() == Counts(completed=3, failed=1)
    with open(progress.path, "ab") as file:
        # A worker that was killed while it wrote.
        file.write(b"4 ")
    assert progress.read() == Counts(completed=3, failed=1)
    Progress(tmp_path / "none" / "batch.json").add(1, good=True)


def test_what_was_left_half_made_is_swept(tmp_path: Path) -> None:
    shelf = Shelf(tmp_path)
    shelf.write(BATCH)
    for name, age in (("batch_half", 2 * ABANDONED), ("batch_young", 0.0), ("batch_1", 2 * ABANDONED)):
        (tmp_path / name).mkdir(exist_ok=True)
        os.utime(tmp_path / name, (time.time() - age, time.time() - age))
    shelf.sweep()
    assert {each.name for each in tmp_path.iterdir()} == {"batch_1", "batch_young"}
    shelf.delete("batch_1")
    assert shelf.read("batch_1") is None
