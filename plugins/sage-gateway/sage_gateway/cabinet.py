"""The files of a project: what clients upload for batches, and what batches leave."""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec

from sage_gateway.keys import write_private

LONGEST_NAME = 255
#: Seconds after which a folder without a record is nobody's any more.
ABANDONED = 86_400.0
_REST = re.compile(r"[0-9A-Za-z-]{1,100}")


class FileRecord(msgspec.Struct, frozen=True, kw_only=True):
    """A file as it is listed."""

    id: str
    tenant: str
    filename: str
    purpose: str
    bytes: int
    created_at: int

    def shown(self) -> dict[str, Any]:
        """As clients read it."""
        return {
            "id": self.id,
            "object": "file",
            "bytes": self.bytes,
            "created_at": self.created_at,
            "filename": self.filename,
            "purpose": self.purpose,
            "status": "processed",
        }


class Cabinet:
    """The folder of a project's files: ``ID/data`` and ``ID/file.json`` of each. Its methods wait for the disk."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def data(self, id: str) -> Path:
        """The content of a file."""
        return self.folder / id / "data"

    def keep(self, data: bytes, *, filename: str, purpose: str, tenant: str) -> FileRecord:
        """Keep an uploaded file."""
        id = f"file-{time.time_ns():x}{secrets.token_hex(6)}"
        try:
            write_private(self.data(id), data)
            return self._list(id, len(data), filename=filename, purpose=purpose, tenant=tenant)
        except OSError:
            # Half a file on a full disk would only keep it full.
            self.delete(id)
            raise

    def adopt(self, path: Path, id: str, *, filename: str, purpose: str, tenant: str) -> FileRecord:
        """Keep a file that is there already, under an id of the caller's choice; a second time changes nothing."""
        found = self.find(id)
        if found is not None:
            return found
        self.data(id).parent.mkdir(parents=True, exist_ok=True)
        if not self.data(id).exists():
            share(path, self.data(id))
        return self._list(id, self.data(id).stat().st_size, filename=filename, purpose=purpose, tenant=tenant)

    def _list(self, id: str, size: int, *, filename: str, purpose: str, tenant: str) -> FileRecord:
        record = FileRecord(
            id=id, tenant=tenant, filename=filename, purpose=purpose, bytes=size, created_at=int(time.time())
        )
        # Written last: without it there is no file.
        write_private(self.folder / id / "file.json", msgspec.json.encode(record))
        return record

    def find(self, id: str) -> FileRecord | None:
        """A file by its id, or None."""
        if not is_id(id, "file-"):
            return None
        try:
            return msgspec.json.decode((self.folder / id / "file.json").read_bytes(), type=FileRecord)
        except (OSError, msgspec.MsgspecError):
            return None

    def all(self) -> Iterator[FileRecord]:
        """Every file, newest first."""
        names = [each.name for each in self.folder.iterdir()] if self.folder.is_dir() else []
        found = [record for name in names if (record := self.find(name)) is not None]
        yield from sorted(found, key=lambda record: (record.created_at, record.id), reverse=True)

    def delete(self, id: str) -> None:
        """Forget a file."""
        (self.folder / id / "file.json").unlink(missing_ok=True)
        shutil.rmtree(self.folder / id, ignore_errors=True)

    def prune(self, before: float) -> list[str]:
        """Forget files that were made before an epoch second, and what was left half made; returns their ids."""
        gone = [record.id for record in self.all() if record.created_at < before]
        for id in gone:
            self.delete(id)
        for each in self.folder.iterdir() if self.folder.is_dir() else ():
            with contextlib.suppress(OSError):
                if each.stat().st_mtime < time.time() - ABANDONED and not (each / "file.json").exists():
                    shutil.rmtree(each)
        return gone


def is_id(text: str, kind: str) -> bool:
    """Whether a text is an id as they are made here, which names one folder and no other place."""
    return text.startswith(kind) and _REST.fullmatch(text, len(kind)) is not None


def share(path: Path, to: Path) -> None:
    """Give a file that does not change a second name; a copy where the system has no such names."""
    beside = to.with_name(f"{to.name}.{secrets.token_hex(4)}")
    try:
        try:
            os.link(path, beside)
        except FileNotFoundError:
            raise
        except OSError:
            shutil.copyfile(path, beside)
        os.replace(beside, to)
    except OSError:
        beside.unlink(missing_ok=True)
        raise
