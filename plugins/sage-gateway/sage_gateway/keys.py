"""API keys: what each may do, kept as digests in one file of the project.

A key is 256 random bits. Nobody guesses such a key, so one SHA-256 keeps it as safe as a slow password hash would, and
a request costs one microsecond instead of a hundred milliseconds.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import secrets
import stat
import time
from collections.abc import Callable, Iterator, Mapping
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Annotated

import msgspec

from sage_core import ConfigError, Paths, ServiceClass, UsageError

#: How every key begins, so that people and secret scanners know one when they see it.
PREFIX = "sk-sage-"
#: Seconds between two looks at whether the file has changed: a revoked key works for no longer.
LOOK = 1.0
#: Characters of a key's digest that name it.
_NAME = 10

#: Seconds, and money: what is without end cannot be written as JSON, nor counted in whole numbers.
Seconds = Annotated[float, msgspec.Meta(gt=0, le=1e9)]
Amount = Annotated[float, msgspec.Meta(ge=0, le=1e12)]
Count = Annotated[int, msgspec.Meta(ge=0)]
#: Goes into labels, logs and headers.
Tenant = Annotated[str, msgspec.Meta(max_length=128, pattern=r"^[^\x00-\x1f\x7f]*$")]


class Key(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What one API key may do; 0 and empty are without bound."""

    #: Names the key to people: the start of its digest.
    id: str
    #: SHA-256 of the key, as hexadecimal digits.
    digest: str
    tenant: Tenant
    #: May change what is served, and see what every tenant does.
    admin: bool = False
    #: Of its requests, which may name one behind it; None leaves the choice to them.
    service_class: ServiceClass | None = None
    priority: int = 0
    #: Seconds: what its requests ask for that say nothing themselves.
    ttft: Seconds | None = None
    tpot: Seconds | None = None
    end_to_end: Seconds | None = None
    #: Names or patterns of models, such as ``workflow/*``.
    models: tuple[str, ...] = ()
    requests_per_minute: Count = 0
    tokens_per_minute: Count = 0
    #: Requests in flight.
    concurrency: Count = 0
    #: What it may spend in all, in the unit of ``[gateway.prices]``.
    budget: Amount = 0.0
    #: Epoch seconds.
    created_at: int = 0

    def allows(self, model: str) -> bool:
        """Whether its requests may name this model."""
        return not self.models or any(fnmatchcase(model, pattern) for pattern in self.models)


#: Stands for every caller while there are no keys.
ANYBODY = Key(id="", digest="", tenant="local", admin=True)


class _File(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The file as it is written."""

    keys: tuple[Key, ...] = ()


def keys_path(paths: Paths) -> Path:
    """Where a project keeps its keys."""
    return paths.project / "keys.json"


class KeyFile:
    """Reads and changes the keys of a project; another process may change them at any time."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def read(self) -> tuple[Key, ...]:
        """All keys, in the order they were made; none where there is no file."""
        try:
            data = self.path.read_bytes()
        except FileNotFoundError:
            return ()
        except OSError as error:
            raise ConfigError(str(self.path), f"the API keys cannot be read: {error.strerror}") from None
        try:
            return msgspec.json.decode(data, type=_File).keys
        except msgspec.MsgspecError as error:
            help = "put back what `sage keys` wrote, or remove the file and make other keys"
            raise ConfigError(str(self.path), f"not a file of API keys: {error}", help) from None

    def add(self, **fields: object) -> tuple[str, Key]:
        """Make a key; returns its text, which is kept nowhere, and what is kept of it."""
        text = PREFIX + secrets.token_urlsafe(32)
        digest = digest_of(text)
        made = {"id": digest[:_NAME], "digest": digest, "created_at": int(time.time()), **fields}
        try:
            key = msgspec.convert(made, Key)
        except msgspec.ValidationError as error:
            raise UsageError(f"no such key can be made: {error}".replace("`", "'")) from None
        with self._changing():
            self._write((*self.read(), key))
        return text, key

    def revoke(self, id: str) -> Key:
        """Remove a key by its id or the start of it."""
        with self._changing():
            keys = self.read()
            found = [key for key in keys if id and key.id.startswith(id)]
            if len(found) != 1:
                known = ", ".join(key.id for key in keys) or "there are none"
                problem = f"{id!r} is the start of several keys" if found else f"no key has the id {id!r}"
                raise UsageError(problem, f"known: {known}; see: sage keys list")
            self._write(tuple(key for key in keys if key is not found[0]))
        return found[0]

    @contextlib.contextmanager
    def _changing(self) -> Iterator[None]:
        """One change at a time: of two at once, one would bring back what the other has revoked."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with open(self.path.with_suffix(".lock"), "ab") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield

    def _write(self, keys: tuple[Key, ...]) -> None:
        write_private(self.path, msgspec.json.format(msgspec.json.encode(_File(keys=keys)), indent=2) + b"\n")


class Keyring:
    """Knows a key by its text; looks at the file again when it has changed.

    Args:
        unread: told why a changed file could not be read; the keys that were known go on.
    """

    def __init__(self, file: KeyFile, unread: Callable[[ConfigError], None] = lambda error: None) -> None:
        self._file = file
        self._unread = unread
        self._looked = float("-inf")
        self._stamp: tuple[int, int, int] | None = None
        self._by_digest: Mapping[str, Key] = {}

    def open_to_all(self, now: float) -> bool:
        """Whether there are no keys, so that every caller is let in."""
        self._look(now)
        return not self._by_digest

    def find(self, text: str, now: float) -> Key | None:
        """The key of this text, or None; `now` is in seconds on any clock that only moves on."""
        self._look(now)
        if not self._by_digest:
            return ANYBODY
        # Looked up by digest: how long that takes says nothing about the keys themselves.
        return self._by_digest.get(digest_of(text))

    def named(self, id: str, now: float) -> Key | None:
        """The key of an id; everybody where there are no keys."""
        self._look(now)
        if not self._by_digest:
            return ANYBODY
        return next((key for key in self._by_digest.values() if id and key.id == id), None)

    def _look(self, now: float) -> None:
        if now - self._looked < LOOK:
            return
        self._looked, first = now, self._looked == float("-inf")
        try:
            found = os.stat(self._file.path)
            stamp = (found.st_ino, found.st_mtime_ns, found.st_size)
        except FileNotFoundError:
            stamp = None
        if stamp == self._stamp:
            return
        self._stamp = stamp
        if stamp is None and self._by_digest:
            # A file that vanishes must not open the gateway to everybody.
            self._by_digest = {"": ANYBODY_ELSE}
            return
        try:
            self._by_digest = {key.digest: key for key in self._file.read()} or self._none_left()
        except ConfigError as error:
            if first:
                raise
            # Somebody's slip of the pen must not end the service of those who have keys.
            self._unread(error)

    def _none_left(self) -> Mapping[str, Key]:
        # The last key was revoked while the gateway may be bound to more than loopback: it stays shut.
        return {"": ANYBODY_ELSE} if self._by_digest else {}


#: What stands in a ring without keys that once had some: no text has its digest.
ANYBODY_ELSE = Key(id="", digest="", tenant="")


def digest_of(text: str) -> str:
    """What is kept of a key."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def write_private(path: Path, data: bytes) -> None:
    """Replace a file in one step, readable for its owner alone."""
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f"{path.name}.{secrets.token_hex(4)}")
    handle = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, stat.S_IRUSR | stat.S_IWUSR)
    try:
        with open(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(beside, path)
    except BaseException:
        beside.unlink(missing_ok=True)
        raise
