"""Batch records: kept as a whole, listed newest first, and stopped by the clock or by whoever cancels."""

from __future__ import annotations

from pathlib import Path

from msgspec.structs import replace
from sage_gateway.batch_records import CANCELLED, EXPIRED, BatchRecord, LineError, Shelf

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
