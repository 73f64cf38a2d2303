"""A PostgreSQL server for tests: the one SAGE_TEST_POSTGRES names, else one of the pgserver wheel, never none."""

from __future__ import annotations

import atexit
import functools
import hashlib
import os
import tempfile
import warnings
from pathlib import Path

import psycopg


@functools.cache
def server_url() -> str:
    """URL of a running server; one of our own is started once per process and stopped at its end."""
    given = os.environ.get("SAGE_TEST_POSTGRES")
    if given:
        return given
    # Where the wheel cannot be imported or cannot start, the tests fail: a skipped database proves nothing.
    with warnings.catch_warnings():
        # The wheel asks for the user's runtime folder, which a bare container does not name.
        warnings.simplefilter("ignore")
        from pgserver.postgres_server import get_server

    folder = tempfile.mkdtemp(prefix="sage-pg-")
    server = get_server(folder, cleanup_mode="delete")
    atexit.register(server.cleanup)
    return str(server.get_uri())


def schema_url(place: Path) -> str:
    """URL of a schema of its own for the store that belongs to `place`."""
    name = "t_" + hashlib.blake2b(str(place).encode(), digest_size=8).hexdigest()
    with psycopg.connect(server_url(), autocommit=True) as connection:
        connection.execute(f"CREATE SCHEMA IF NOT EXISTS {name}")
    url = server_url()
    return f"{url}{'&' if '?' in url else '?'}options=-csearch_path%3D{name}"
