"""A database whose clock can be set: for every handle that has been told, or for every user of a server's schema."""

from __future__ import annotations

import os
import struct
import time
from pathlib import Path

from sage_core.platform.store import JobStore
from tests.chaos.server import Server

#: Days between the epochs of the Julian calendar and of Unix.
UNIX_EPOCH = 2440587.5


class Clock:
    """How far a database's clock is off, in a file that all processes of a trial read."""

    def __init__(self, path: Path) -> None:
        self._file = os.open(path, os.O_RDWR | os.O_CREAT)
        if not os.fstat(self._file).st_size:
            self._set(0)

    def _set(self, seconds: float) -> None:
        os.pwrite(self._file, struct.pack("d", seconds), 0)

    def close(self) -> None:
        """Let go of the file."""
        os.close(self._file)

    def set(self, store: JobStore, seconds: float) -> None:
        """Let the clock be so many seconds off from here on."""
        if store._db.dialect == "sqlite":
            self._set(seconds)
        else:
            store._db.run(f"UPDATE chaos_clock.shift SET seconds = {seconds}")

    def govern(self, store: JobStore) -> None:
        """Let a handle on SQLite take the time from here; on PostgreSQL the schema sees to it."""
        connection = getattr(store._db, "connection", None)
        if connection is not None:
            connection.create_function("julianday", 1, self._julian)

    def _julian(self, moment: str) -> float:
        shift: float = struct.unpack("d", os.pread(self._file, 8, 0))[0]
        return UNIX_EPOCH + (time.time() + shift) / 86_400


def clock_url(server: Server, place: Path) -> str:
    """URL of a schema in which `statement_timestamp()` is not the server's own, but what `Clock.set` makes of it."""
    with server.connect() as connection:
        connection.execute("CREATE SCHEMA IF NOT EXISTS chaos_clock")
        connection.execute("CREATE TABLE IF NOT EXISTS chaos_clock.shift (seconds double precision)")
        connection.execute("DELETE FROM chaos_clock.shift")
        connection.execute("INSERT INTO chaos_clock.shift VALUES (0)")
        connection.execute(
            "CREATE OR REPLACE FUNCTION chaos_clock.statement_timestamp() RETURNS timestamptz STABLE LANGUAGE sql AS"
            " 'SELECT pg_catalog.statement_timestamp() + (SELECT seconds FROM chaos_clock.shift) * interval ''1 s'''"
        )
    # Named in the path, the system's own schema no longer comes first of all.
    return server.schema_url(place, path=",chaos_clock,pg_catalog")
