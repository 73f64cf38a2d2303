"""The decision log: one JSON line for each request's part in a dispatch; never a prompt."""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import msgspec

from sage_core.kernel.control_plane.events import Decided

#: Bytes after which the log starts afresh, keeping one older file.
ROTATE = 64 * 2**20
#: What a line says of its own type, which every line of the log is of.
_TAG = len('{"type":"decided",')


class DecisionLog:
    """Appends to ``decisions.jsonl`` of a project's log folder; safe for several writers on one machine."""

    def __init__(self, folder: Path, *, rotate: int = ROTATE) -> None:
        self.path = folder / "decisions.jsonl"
        self._rotate = rotate
        self._file: int | None = None
        self._encoder = msgspec.json.Encoder()

    def write(self, lines: Iterable[Decided]) -> None:
        """Append the lines in one write, so that a killed process leaves only whole ones."""
        at = b'{"at":%d,' % time.time_ns()
        data = b"".join([at + self._encoder.encode(line)[_TAG:] + b"\n" for line in lines])
        if not data:
            return
        if self._file is None:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._file = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
        os.write(self._file, data)
        found = os.fstat(self._file)
        if found.st_size >= self._rotate:
            # Writers that come here at one moment take turns: the lock is on the file itself, and goes with it.
            fcntl.flock(self._file, fcntl.LOCK_EX)
            # Who was first has rotated already; a second time would put the fresh file over the older one.
            if self.path.exists() and os.path.samestat(found, self.path.stat()):
                os.replace(self.path, self.path.with_name("decisions.1.jsonl"))
            self.close()

    def close(self) -> None:
        """Close the file; a later write opens it again."""
        if self._file is not None:
            os.close(self._file)
            self._file = None


def log_files(folder: Path) -> list[Path]:
    """The decision logs of a project that are there, the older one first."""
    return [path for name in ("decisions.1.jsonl", "decisions.jsonl") if (path := folder / name).is_file()]


def lines_of(files: Iterable[Path], request: str) -> Iterator[dict[str, Any]]:
    """What the logs hold about requests whose ids begin like this, in order."""
    needle = b'"request":"' + request.encode()
    decoder = msgspec.json.Decoder(dict[str, Any])
    for path in files:
        with path.open("rb") as file:
            for line in file:
                # Decoding 64 MiB for one request would take seconds; the last line may be half written.
                if needle in line and line.endswith(b"\n"):
                    yield decoder.decode(line)
