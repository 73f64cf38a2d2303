"""What is kept of a batch beside its run: one file, which its jobs look at too."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import msgspec

from sage_gateway.keys import write_private

#: Codes of lines that were not sent.
CANCELLED, EXPIRED, AWAY = "batch_cancelled", "batch_expired", "gateway_unavailable"


class LineError(msgspec.Struct, frozen=True, kw_only=True):
    """Why a line of an input file cannot be taken."""

    code: str
    message: str
    line: int | None = None
    param: str | None = None


class BatchRecord(msgspec.Struct, frozen=True, kw_only=True):
    """A batch as its creator asked for it; times are epoch seconds."""

    id: str
    run: str
    tenant: str
    #: Id of the key it works for; empty where there are none.
    key: str
    endpoint: str
    input_file_id: str
    completion_window: str
    created_at: int
    expires_at: int
    total: int
    metadata: dict[str, str] | None = None
    errors: tuple[LineError, ...] = ()
    cancelling_at: int | None = None

    def stopped(self, now: float) -> str:
        """Why its lines are not sent any more, or an empty string."""
        if self.cancelling_at is not None:
            return CANCELLED
        return EXPIRED if now >= self.expires_at else ""


class Counts(msgspec.Struct, frozen=True, kw_only=True):
    """What became of the lines of a batch that is over."""

    completed: int = 0
    failed: int = 0
    #: Of those that failed, the ones that were never sent.
    cancelled: int = 0
    expired: int = 0


class Shelf:
    """The folder of a project's batches: ``ID/batch.json`` and ``ID/input.jsonl`` of each."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def input(self, id: str) -> Path:
        """The lines of a batch, which stay when its input file is deleted."""
        return self.folder / id / "input.jsonl"

    def record(self, id: str) -> Path:
        """What is known of a batch."""
        return self.folder / id / "batch.json"

    def read(self, id: str) -> BatchRecord | None:
        """A batch, or None where there is none."""
        return read_record(self.record(id))

    def write(self, batch: BatchRecord) -> None:
        """Keep a batch, or what has changed of it."""
        write_private(self.record(batch.id), msgspec.json.encode(batch))

    def all(self) -> Iterator[BatchRecord]:
        """Every batch, newest first."""
        if self.folder.is_dir():
            # Ids begin with the time.
            for each in sorted(self.folder.iterdir(), key=lambda path: path.name, reverse=True):
                batch = self.read(each.name)
                if batch is not None:
                    yield batch


def read_record(path: Path) -> BatchRecord | None:
    """A batch by its file, or None where there is none."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=BatchRecord)
    except (FileNotFoundError, NotADirectoryError, ValueError):
        return None
