"""The steps of a batch, without a run around them."""

from __future__ import annotations

import asyncio
import json
import time
from pathlib import Path
from typing import Any

from msgspec.structs import replace
from sage_gateway import batch_operators
from sage_gateway.batch_operators import Answered, BatchFiles, Write
from sage_gateway.batch_records import CANCELLED, EXPIRED, BatchRecord, Counts, Progress, Shelf

from sage_core import Batch

BATCH = BatchRecord(
    id="batch_1",
    run="1",
    tenant="t",
    key="",
    endpoint="/v1/embeddings",
    input_file_id="file-1",
    completion_window="24h",
    created_at=100,
    expires_at=2**40,
    total=1,
)


class Folder:
    """An `ArtifactDir`."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def publish(self, kind: Any) -> Any:
        return kind(self.path, "digest")


def row(number: int, *, status: int = 200, answer: str = "{}", code: str = "") -> Answered:
    return Answered(number=number, custom_id=f"c{number}", status=status, answer=answer, request="r", code=code)


def test_lines_are_read_as_they_are_written(tmp_path: Path) -> None:
    path = tmp_path / "lines"
    path.write_text('{"custom_id": "a", "body": {"x":  1.50}}\n\n{"body": {}, "custom_id": "ü"}\n')
    found = list(batch_operators.lines(path=str(path)))
    assert [(each.number, each.custom_id, each.body) for each in found] == [(0, "a", '{"x":  1.50}'), (2, "ü", "{}")]


def test_answers_are_written_in_order_and_failures_apart(tmp_path: Path) -> None:
    write = Write()
    write.add(Batch([row(2), row(1, status=400, answer="no JSON"), row(3, status=0, answer="", code=CANCELLED)]))
    write.add(Batch([row(0, answer='{"a":1.50}')]))
    assert isinstance(write.finish(Folder(tmp_path)), BatchFiles)
    good = (tmp_path / "output.jsonl").read_text().splitlines()
    assert [json.loads(line)["custom_id"] for line in good] == ["c0", "c2"]
    # An answer is kept as its engine wrote it.
    assert '"body":{"a":1.50}' in good[0]
    bad = [json.loads(line) for line in (tmp_path / "error.jsonl").read_text().splitlines()]
    assert bad[0]["response"] == {"status_code": 400, "request_id": "r", "body": "no JSON"}
    assert (bad[1]["response"], bad[1]["error"]["code"]) == (None, CANCELLED)
    counts = json.loads((tmp_path / "counts.json").read_text())
    assert counts == {"completed": 2, "failed": 2, "cancelled": 1, "expired": 0}


def test_a_line_of_a_batch_that_is_over_is_not_sent(tmp_path: Path) -> None:
    shelf = Shelf(tmp_path)

    def sent(batch: BatchRecord | None) -> str:
        if batch is not None:
            shelf.write(batch)
        record, beacon = str(shelf.record("batch_1")), str(tmp_path / "gateway.json")
        return asyncio.run(batch_operators.ask(1, "c1", "{}", endpoint="/v1/x", record=record, beacon=beacon)).code

    assert sent(None) == CANCELLED
    assert sent(replace(BATCH, cancelling_at=1)) == CANCELLED
    assert sent(replace(BATCH, expires_at=int(time.time()) - 1)) == EXPIRED
    assert Progress(shelf.record("batch_1")).read() == Counts(failed=1)
