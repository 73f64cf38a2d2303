"""Artifacts that travel through the database, where machines share no disk: each as a tar of one file or folder.

A tar is cut into pieces, so that neither side holds more than one of them. The database takes all pieces or none.
"""

from __future__ import annotations

import tarfile
from collections.abc import Iterable
from pathlib import Path
from typing import Protocol

from sage_core.common.errors import CorruptArtifact
from sage_core.platform.artifacts import ArtifactStore, explained
from sage_core.platform.cluster import PIECE
from sage_core.platform.store import JobStore
from sage_core.platform.transaction import Transaction


class Pieces(Protocol):
    """Where shared files are read from: the store, inside a transaction or outside."""

    @property
    def shares_files(self) -> bool:
        """Whether files travel through it."""

    def has_blob(self, digest: str) -> bool:
        """Whether a file is shared."""

    def blob_piece(self, digest: str, n: int) -> bytes | None:
        """The `n`-th piece of a file; None behind the last one."""


def artifacts_of(root: Path, pieces: Pieces) -> ArtifactStore:
    """The artifacts of a project: a folder, which caches those of the database where files travel through it."""
    return SharedArtifacts(root, pieces) if pieces.shares_files else ArtifactStore(root)


class SharedArtifacts(ArtifactStore):
    """Artifacts below a folder that is a cache of those in the database."""

    is_cache = True

    def __init__(self, root: Path, pieces: Pieces) -> None:
        super().__init__(root)
        self._pieces = pieces

    def has(self, digest: str) -> bool:
        """Whether an artifact is here or in the database."""
        return super().has(digest) or self._pieces.has_blob(digest)

    def obtain(self, digest: str) -> Path:
        """Return where an artifact lies, after fetching it where it is only in the database."""
        try:
            return self.path(digest)
        except CorruptArtifact:
            if self._pieces.blob_piece(digest, 0) is None:
                raise
        self._fetch(digest)
        return self.path(digest)

    def verify(self, digest: str) -> None:
        """Hold an artifact against its digest; a damaged or missing one is fetched where the database has it."""
        try:
            super().verify(digest)
        except CorruptArtifact:
            if self._pieces.blob_piece(digest, 0) is None:
                raise
            self.discard(digest)
            self._fetch(digest)

    def _fetch(self, digest: str) -> None:
        with self.new_dir() as folder:
            try:
                source = _Source(self._pieces, digest)
                # A stream is only ever read, whatever the stubs ask for.
                with explained(self.root), tarfile.open(mode="r|", fileobj=source) as tar:  # type: ignore[call-overload]
                    tar.extractall(folder.path, filter="data")
                (found,) = folder.path.iterdir()
            except (tarfile.TarError, ValueError) as error:
                raise CorruptArtifact(f"{digest} in the database", f"cannot be unpacked: {error}") from None
            actual = self._seal(found) if found.is_dir() else self.publish_file(found, suffix=found.suffix)
        if actual != digest:
            raise CorruptArtifact(f"{digest} in the database", f"its contents have the digest {actual}")


def share(store: JobStore, artifacts: ArtifactStore, digests: Iterable[str]) -> None:
    """Put artifacts into the database, each in a transaction; done before anything that is committed names them."""
    if not store.shares_files:
        return
    for digest in dict.fromkeys(digests):
        with store.transaction() as tx:
            # Also where it is there already: an old one that nothing refers to is about to be dropped.
            if not tx.touch_blob(digest):
                _pack(artifacts.path(digest), _Sink(tx, digest))


def _pack(path: Path, sink: _Sink) -> None:
    # A stream is only ever written, whatever the stubs ask for, in blocks of one size.
    with tarfile.open(mode="w|", fileobj=sink, bufsize=PIECE, format=tarfile.PAX_FORMAT) as tar:  # type: ignore[call-overload]
        tar.add(path, arcname=path.name, filter=_anonymous)


class _Source:
    def __init__(self, pieces: Pieces, digest: str) -> None:
        self._pieces, self._digest = pieces, digest
        self._n = 0

    def read(self, size: int) -> bytes:
        piece = self._pieces.blob_piece(self._digest, self._n)
        self._n += 1
        return piece or b""


class _Sink:
    def __init__(self, tx: Transaction, digest: str) -> None:
        self._tx, self._digest = tx, digest
        self._n = 0

    def write(self, block: bytes) -> int:
        self._tx.put_blob(self._digest, [block], start=self._n)
        self._n += 1
        return len(block)


def _anonymous(entry: tarfile.TarInfo) -> tarfile.TarInfo:
    """Leave out who packed it and when: equal artifacts are packed equally."""
    entry.uid = entry.gid = entry.mtime = 0
    entry.uname = entry.gname = ""
    entry.mode = 0o755 if entry.isdir() else 0o644
    return entry
