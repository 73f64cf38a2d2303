"""The store in a SQLite file: runs compiled statements, and turns SQLite's errors into SAGE's."""

from __future__ import annotations

import logging
import sqlite3
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from sage_core.common.errors import StoreError, StoreUnavailable
from sage_core.common.telemetry import log
from sage_core.platform.database import Database, Parameters, Row, mask
from sage_core.platform.mounts import MOUNTS, network_file_system

#: Oldest SQLite that has both `UPDATE … RETURNING` and `WITH … AS MATERIALIZED`.
MINIMUM = (3, 35, 0)
#: How long a statement waits for another process's write, in ms.
BUSY_MS = 30_000
#: Why a SQLite store does not belong on a network file system.
UNSAFE = (
    "SQLite is not safe on a network file system: keep the store on a local disk, or use [store] url = postgresql://…"
)
LEVELS = ("OFF", "NORMAL", "FULL", "EXTRA")


def sqlite_path(url: str) -> Path:
    """Return the file of a ``sqlite:///PATH`` URL; three slashes are relative, four absolute."""
    path = url.removeprefix("sqlite:///")
    if path in ("", ":memory:"):
        raise StoreError(mask(url), "a store is a file, because several processes open it", "use sqlite:///PATH")
    return Path(path)


class SqliteDatabase(Database):
    """A connection to a SQLite file in write-ahead mode."""

    dialect = "sqlite"

    def __init__(self, url: str, connection: sqlite3.Connection, statements: Mapping[str, str]) -> None:
        super().__init__(url, statements)
        self.connection = connection
        self._version = -1

    def fetch(self, name: str, parameters: Parameters) -> list[Row]:
        """Run a statement and return its rows."""
        try:
            rows: list[Row] = self.connection.execute(self.statements[name], parameters).fetchall()
        except sqlite3.Error as error:
            raise explain(self.url, error) from error
        return rows

    def write(self, name: str, parameters: Parameters) -> int:
        """Run a writing statement and return the number of rows it touched."""
        self._require_transaction()
        try:
            return self.connection.execute(self.statements[name], parameters).rowcount
        except sqlite3.Error as error:
            raise explain(self.url, error) from error

    def write_each(self, name: str, rows: Iterable[Parameters]) -> int:
        """Run a writing statement once per row and return the number of rows touched in all."""
        self._require_transaction()
        try:
            return self.connection.executemany(self.statements[name], rows).rowcount
        except sqlite3.Error as error:
            raise explain(self.url, error) from error

    def insert_each(self, name: str, rows: Iterable[Parameters]) -> list[int]:
        """Insert rows one by one and return the id of each."""
        return [self.write_fetch(name, row)[0][0] for row in rows]

    def in_transaction(self) -> bool:
        """Whether a transaction is open; SQLite may have ended it after a full disk."""
        return self.connection.in_transaction

    def begin(self) -> None:
        """Start a write transaction at once, so that it never has to be upgraded from a read."""
        self._require_no_transaction()
        self.run("BEGIN IMMEDIATE")

    def commit(self) -> None:
        """Make the transaction's writes visible; one that cannot be committed is rolled back."""
        try:
            self.run("COMMIT")
        except StoreError:
            self.rollback()
            raise

    def rollback(self) -> None:
        """Drop the transaction's writes; SQLite may have done so already after a full disk."""
        if self.connection.in_transaction:
            self.run("ROLLBACK")

    def run(self, text: str) -> list[Row]:
        """Run a statement given as text."""
        try:
            rows: list[Row] = self.connection.execute(text).fetchall()
        except sqlite3.Error as error:
            raise explain(self.url, error) from error
        return rows

    def changed(self) -> bool:
        """Tell whether another connection has committed since the last call; costs microseconds."""
        version: int = self.run("PRAGMA data_version")[0][0]
        moved, self._version = version != self._version, version
        return moved

    def tables(self) -> set[str]:
        """Names of the tables there are."""
        return {row[0] for row in self.run("SELECT name FROM sqlite_master WHERE type = 'table'")}

    def lock_schema(self, key: int) -> None:
        """Nothing to do: a write transaction is alone."""

    def close(self) -> None:
        """Close the connection; an open transaction is rolled back."""
        self.connection.close()


def connect(url: str, *, synchronous: str, statements: Mapping[str, str], mounts: Path = MOUNTS) -> SqliteDatabase:
    """Open the file, creating it and its folder, in write-ahead mode; on a network file system with a warning."""
    path = sqlite_path(url)
    if synchronous.upper() not in LEVELS:
        raise StoreError(mask(url), f"unknown synchronous level {synchronous!r}", f"use one of {', '.join(LEVELS)}")
    if sqlite3.sqlite_version_info < MINIMUM:
        wanted = ".".join(map(str, MINIMUM))
        raise StoreError(mask(url), f"SQLite {sqlite3.sqlite_version} is too old", f"SAGE needs {wanted} or later")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        elsewhere = "give SAGE_HOME a folder that can be written to, or [store] url another place"
        raise StoreError(mask(url), f"cannot create {path.parent}: {error.strerror}", elsewhere) from error
    shared = network_file_system(path, mounts)
    if shared:
        log("store_on_network", level=logging.WARNING, path=str(path), file_system=shared, problem=UNSAFE)
    try:
        # Autocommit: the store says itself where a transaction begins.
        connection = sqlite3.connect(path, timeout=BUSY_MS / 1000, isolation_level=None)
    except sqlite3.Error as error:
        raise explain(mask(url), error) from error
    database = SqliteDatabase(url, connection, statements)
    try:
        _write_ahead(database)
        database.run(f"PRAGMA synchronous={synchronous.upper()}")
        database.run("PRAGMA foreign_keys=ON")
    except BaseException:
        connection.close()
        raise
    return database


def _write_ahead(database: SqliteDatabase) -> None:
    # SQLite's busy timeout does not cover the switch to WAL, which several processes may attempt at once.
    give_up = time.monotonic() + BUSY_MS / 1000
    while True:
        try:
            database.run("PRAGMA journal_mode=WAL")
        except StoreError as error:
            if "busy" not in error.args[1] or time.monotonic() > give_up:
                raise
            time.sleep(0.005)
        else:
            return


_EXPLAINED: Sequence[tuple[str, str, str]] = (
    ("SQLITE_BUSY", f"busy: another process kept it locked for {BUSY_MS // 1000} s", "see who uses it, then try again"),
    ("SQLITE_LOCKED", "busy: locked by this process", "close the other handle"),
    ("SQLITE_READONLY", "read-only", "give this user write permission on the file and its folder"),
    ("SQLITE_FULL", "disk full", "free some space, then run the command again; finished work is kept"),
    ("SQLITE_NOTADB", "not a SQLite database (foreign file)", "choose another path"),
    ("SQLITE_CORRUPT", "the database file is damaged", "restore it from a backup, or move it away to start afresh"),
    ("SQLITE_CANTOPEN", "cannot be opened", "check that the path is a file in a folder you may write to"),
    ("SQLITE_IOERR", "the disk refused a read or write", "check the file system"),
    ("SQLITE_CONSTRAINT", "refused by a constraint", ""),
)


def explain(url: str, error: sqlite3.Error) -> StoreError:
    """Say what SQLite's error means for the user."""
    name = getattr(error, "sqlite_errorname", None) or ""
    for prefix, problem, help in _EXPLAINED:
        if name.startswith(prefix):
            # Whoever keeps it locked lets go some time.
            kind = StoreUnavailable if prefix == "SQLITE_BUSY" else StoreError
            return kind(url, f"{problem} ({error})", help)
    return StoreError(url, str(error))
