"""A PostgreSQL server that a test may stop, crash and start again, and whose connections it may cut."""

from __future__ import annotations

import hashlib
import random
import tempfile
import warnings
from pathlib import Path
from typing import Literal

import psycopg

#: ``fast`` rolls open transactions back and says goodbye; ``immediate`` leaves as a crash does, to recover at start.
Stop = Literal["fast", "immediate"]


class Server:
    """A server from the pgserver wheel, also where SAGE_TEST_POSTGRES names one: that is not ours to stop.

    Where the wheel cannot be imported or cannot start, the tests fail: a skipped database proves nothing.
    """

    def __init__(self) -> None:
        with warnings.catch_warnings():
            # The wheel asks for the user's runtime folder, which a bare container does not name.
            warnings.simplefilter("ignore")
            from pgserver._commands import create_command_function
            from pgserver.postgres_server import PostgresServer

        self._pg_ctl = create_command_function("pg_ctl")
        folder = Path(tempfile.mkdtemp(prefix="sage-chaos-")).resolve()
        self._wheel = PostgresServer(folder, cleanup_mode="delete")

    @property
    def url(self) -> str:
        """The database, as its superuser."""
        return str(self._wheel.get_uri())

    def stop(self, mode: Stop) -> None:
        """Cut every connection and end the server."""
        # Root may not run the server; the wheel has made a user for that.
        self._pg_ctl(["-w", "-m", mode, "stop"], pgdata=self._wheel.pgdata, user=self._wheel.system_user)

    def start(self) -> None:
        """Start the stopped server and wait until it answers."""
        self._wheel.ensure_postgres_running()

    def listen(self, address: str) -> None:
        """Start the stopped server so that it is reached under an address of the network too, by anybody there."""
        with (self._wheel.pgdata / "pg_hba.conf").open("a") as rules:
            rules.write(f"host all all {address}/24 trust\n")
        socket = self.url.partition("host=")[2]
        options = ["-o", f'-h "{address}"', "-o", f"-k {socket}", "-l", str(self._wheel.log)]
        self._pg_ctl(["-w", *options, "start"], pgdata=self._wheel.pgdata, user=self._wheel.system_user)

    def close(self) -> None:
        """End the server and remove its files."""
        self._wheel.cleanup()

    def connect(self, url: str = "") -> psycopg.Connection:
        """A connection that is not a store's."""
        return psycopg.connect(url or self.url, autocommit=True, application_name="chaos")

    def schema_url(self, place: Path, *, user: str = "postgres", path: str = "") -> str:
        """URL of a schema of its own for the store that belongs to `place`.

        Args:
            user: who opens the store, and owns the schema.
            path: what follows the schema in the search path.
        """
        name = "t_" + hashlib.blake2b(str(place).encode(), digest_size=8).hexdigest()
        with self.connect() as connection:
            connection.execute(f"CREATE SCHEMA IF NOT EXISTS {name} AUTHORIZATION {user}")
        url = self.url.replace("//postgres:", f"//{user}:")
        return f"{url}&options=-csearch_path%3D{name}{path}"

    def limit_connections(self, user: str, limit: int) -> None:
        """Make a user who may hold only so many connections; the superuser is not bound by any limit."""
        with self.connect() as connection:
            found = connection.execute("SELECT 1 FROM pg_roles WHERE rolname = %s", [user]).fetchone()
            verb = "ALTER" if found else "CREATE"
            connection.execute(f"{verb} ROLE {user} LOGIN CONNECTION LIMIT {limit}")

    def terminate(self, chance: random.Random | None = None) -> int:
        """End the backends of stores, all of them or a random share, at least one; returns how many."""
        with self.connect() as connection:
            rows = connection.execute("SELECT pid FROM pg_stat_activity WHERE application_name = 'sage'").fetchall()
            pids = sorted(row[0] for row in rows)
            if chance is not None and pids:
                pids = chance.sample(pids, chance.randint(1, len(pids)))
            for pid in pids:
                connection.execute("SELECT pg_terminate_backend(%s)", [pid])
        return len(pids)
