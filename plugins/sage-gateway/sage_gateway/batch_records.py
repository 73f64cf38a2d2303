"""What is kept of a batch beside its run: one file, which its jobs look at too, and how far they are."""

from __future__ import annotations

import contextlib
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec

from sage_gateway.cabinet import ABANDONED, is_id
from sage_gateway.keys import write_private

#: Codes of lines that were not sent.
CANCELLED, EXPIRED = "batch_cancelled", "batch_expired"


class LineError(msgspec.Struct, frozen=True, kw_only=True):
    """Why a line of an input file cannot be taken."""

    code: str
    message: str
    line: int | None = None
    param: str | None = None


class Counts(msgspec.Struct, frozen=True, kw_only=True):
    """What became of the lines of a batch."""

    completed: int = 0
    failed: int = 0
    #: Of those that failed, the ones that were never sent.
    cancelled: int = 0
    expired: int = 0


class Ending(msgspec.Struct, frozen=True, kw_only=True):
    """What a batch came to: runs and what they leave are pruned one day, and this is not; times are epoch seconds."""

    status: str
    started_at: int | None
    finished_at: int
    counts: Counts = Counts()
    #: Ids of files by kind: ``output`` and ``error``.
    files: dict[str, str] = {}
    #: Why nothing could be made of its run.
    problem: str = ""


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
    #: Whether its run was queued: one that is gone after that is not queued again.
    queued: bool = False
    ended: Ending | None = None

    def stopped(self, now: float) -> str:
        """Why its lines are not sent any more, or an empty string."""
        if self.cancelling_at is not None:
            return CANCELLED
        return EXPIRED if now >= self.expires_at else ""

    @property
    def over_since(self) -> int | None:
        """When it ended, or None while it may go on."""
        if self.errors:
            return self.created_at
        return self.ended.finished_at if self.ended is not None else None


class Progress:
    """Which lines of a batch are answered: its workers add to one file, line by line, for people who look on."""

    def __init__(self, record: Path) -> None:
        self.path = record.with_name("progress")

    def add(self, number: int, *, good: bool) -> None:
        """A line has its answer; one that is asked for again may have another."""
        # What was counted is shown and nothing else: no answer is lost for it.
        with contextlib.suppress(OSError), open(self.path, "ab", buffering=0) as file:
            file.write(b"%d %d\n" % (number, good))

    def read(self) -> Counts:
        """How many there are."""
        try:
            data = self.path.read_bytes()
        except OSError:
            return Counts()
        # What is behind the last newline may be half an entry.
        last = dict(entry.split(b" ", 1) for entry in data[: data.rfind(b"\n") + 1].splitlines() if b" " in entry)
        good = sum(value == b"1" for value in last.values())
        return Counts(completed=good, failed=len(last) - good)


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
        return read_record(self.record(id)) if is_id(id, "batch_") else None

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

    def delete(self, id: str) -> None:
        """Forget a batch."""
        self.record(id).unlink(missing_ok=True)
        shutil.rmtree(self.folder / id, ignore_errors=True)

    def sweep(self) -> None:
        """Remove what gateways have left that died while they made a batch."""
        for each in self.folder.iterdir() if self.folder.is_dir() else ():
            with contextlib.suppress(OSError):
                if each.stat().st_mtime < time.time() - ABANDONED and not self.record(each.name).exists():
                    shutil.rmtree(each)


def read_record(path: Path) -> BatchRecord | None:
    """A batch by its file, or None where there is none."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=BatchRecord)
    except (FileNotFoundError, NotADirectoryError, ValueError):
        return None
