"""Content-addressed files: written aside, made durable, then renamed into place, so that a crash publishes nothing."""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
import time
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Self

from sage_core.common.errors import CorruptArtifact, StoreError

DAY_S = 86_400.0
HOUR_S = 3_600.0
_CHUNK = 1 << 20


def digest_file(path: Path) -> str:
    """Digest a file's bytes (BLAKE2b, 16 bytes, hex)."""
    hasher = hashlib.blake2b(digest_size=16)
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            hasher.update(chunk)
    return hasher.hexdigest()


def digest_folder(path: Path) -> str:
    """Digest a folder: the sorted relative paths of its files, each with its contents' digest."""
    hasher = hashlib.blake2b(digest_size=16)
    for file in _files(path):
        name = file.relative_to(path).as_posix().encode()
        # The length keeps ("ab", "c") and ("a", "bc") apart.
        hasher.update(len(name).to_bytes(8, "little") + name + bytes.fromhex(digest_file(file)))
    return hasher.hexdigest()


def _files(path: Path) -> list[Path]:
    found = []
    for entry in path.rglob("*"):
        if entry.is_symlink():
            raise StoreError(str(path), f"an artifact cannot hold a link: {entry.name}", "copy the file instead")
        if entry.is_file():
            found.append(entry)
    return sorted(found, key=lambda file: file.relative_to(path).as_posix())


class NewFolder:
    """A folder artifact being written; publish it with `seal`, or leave it and it is removed."""

    def __init__(self, store: ArtifactStore, path: Path) -> None:
        self._store = store
        #: Write here.
        self.path = path

    def seal(self) -> str:
        """Publish the folder under its digest, which is returned; nothing may be written to it afterwards."""
        return self._store._seal(self.path)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        shutil.rmtree(self.path, ignore_errors=True)
        if isinstance(error, OSError) and error.errno in _FULL:
            raise disk_full(self._store.root) from error


class ArtifactStore:
    """Files and folders below one root, each at ``ab/<digest>``, where ``ab`` begins the digest."""

    #: What is missing here may be somewhere else.
    is_cache = False

    def __init__(self, root: Path) -> None:
        self.root = root
        self._tmp = root / "tmp"

    def new_file(self) -> Path:
        """Return a path to write a file at, on the file system it will be published on."""
        with explained(self.root):
            self._tmp.mkdir(parents=True, exist_ok=True)
        return self._tmp / os.urandom(16).hex()

    def new_dir(self) -> NewFolder:
        """Begin a folder artifact."""
        path = self.new_file()
        with explained(self.root):
            path.mkdir()
        return NewFolder(self, path)

    def publish_file(self, tmp: Path, digest: str | None = None, suffix: str = "") -> str:
        """Move a finished file to its digest, `digest_file(tmp)` unless the caller knows it, and return the digest."""
        try:
            with explained(self.root):
                digest = digest or digest_file(tmp)
                place = self._place(digest).with_name(digest + suffix)
                if tmp.stat().st_dev != self.root.stat().st_dev:
                    tmp = Path(shutil.move(tmp, self.new_file()))
                _sync(tmp)
                place.parent.mkdir(exist_ok=True)
                # The same digest is the same contents, so replacing only ever mends a damaged file.
                tmp.replace(place)
                _sync(place.parent)
        except BaseException:
            tmp.unlink(missing_ok=True)
            raise
        return digest

    def _seal(self, path: Path) -> str:
        with explained(self.root):
            digest = digest_folder(path)
            for entry in path.rglob("*"):
                _sync(entry)
            _sync(path)
            place = self._place(digest)
            place.parent.mkdir(exist_ok=True)
            if place.exists() and not self._is_sound(digest):
                place.replace(self.new_file())
            # A folder that another process published meanwhile is the same: a full one cannot be renamed onto.
            with suppress(FileExistsError, NotADirectoryError), _not_empty():
                path.replace(place)
            # As young as the commit that is to name it, though its contents were there before.
            os.utime(place)
            _sync(place.parent)
        return digest

    def path(self, digest: str) -> Path:
        """Return where an artifact lies; one that is missing is corrupt."""
        place = self._place(digest)
        if place.exists():
            return place
        for found in place.parent.glob(f"{digest}.*"):
            return found
        raise CorruptArtifact(str(place), "missing")

    def has(self, digest: str) -> bool:
        """Whether an artifact is here, or wherever else it is kept."""
        with suppress(CorruptArtifact):
            return bool(self.path(digest))
        return False

    def obtain(self, digest: str) -> Path:
        """Return where an artifact lies, after fetching it from wherever else it is kept."""
        return self.path(digest)

    def verify(self, digest: str) -> None:
        """Read an artifact whole and hold it against its digest."""
        found = self.path(digest)
        actual = digest_folder(found) if found.is_dir() else digest_file(found)
        if actual != digest:
            raise CorruptArtifact(str(found), f"its contents have the digest {actual}")

    def discard(self, digest: str) -> None:
        """Take a damaged artifact out of the way, so that the job that made it can publish it again."""
        with suppress(CorruptArtifact):
            self.path(digest).replace(self.new_file())

    def collect_garbage(self, live: Collection[str], *, min_age_s: float = HOUR_S, dry_run: bool = False) -> int:
        """Remove artifacts that nothing refers to and return their number; young ones are kept for a coming commit.

        Args:
            dry_run: count only.
        """
        keep, limit, removed = set(live), time.time() - min_age_s, 0
        for place in [entry for entry in self.root.glob("??/*") if entry.parent != self._tmp]:
            if place.name.split(".")[0] not in keep and place.stat().st_mtime < limit:
                removed += 1
                if not dry_run:
                    _remove(place)
        if not dry_run:
            self.sweep()
        return removed

    def sweep(self, *, min_age_s: float = DAY_S) -> int:
        """Remove what crashed writers left behind and return the number of leftovers."""
        limit, removed = time.time() - min_age_s, 0
        for entry in list(self._tmp.iterdir()) if self._tmp.exists() else []:
            if max(part.stat().st_mtime for part in (entry, *entry.rglob("*"))) < limit:
                _remove(entry)
                removed += 1
        return removed

    def _place(self, digest: str) -> Path:
        return self.root / digest[:2] / digest

    def _is_sound(self, digest: str) -> bool:
        try:
            self.verify(digest)
        except CorruptArtifact:
            return False
        return True


_FULL = (errno.ENOSPC, errno.EDQUOT)


def disk_full(root: Path) -> StoreError:
    """The error for a write that did not fit."""
    return StoreError(str(root), "disk full; nothing was published", "free some space, then run the command again")


@contextmanager
def explained(root: Path) -> Iterator[None]:
    """Turn a failed write below `root` into an error that says what to do."""
    try:
        yield
    except FileNotFoundError:
        raise
    except OSError as error:
        if error.errno in _FULL:
            raise disk_full(root) from error
        raise StoreError(str(root), f"cannot write: {error.strerror}", "check the folder's permissions") from error


@contextmanager
def _not_empty() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno != errno.ENOTEMPTY:
            raise


def _sync(path: Path) -> None:
    number = os.open(path, os.O_RDONLY)
    try:
        os.fsync(number)
    finally:
        os.close(number)


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)
