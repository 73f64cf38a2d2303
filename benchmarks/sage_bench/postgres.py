"""A PostgreSQL to measure on: the one a URL names, else one of the pgserver wheel that lives as long as its case."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

from sage_core import SageError

SETTINGS = ("server_version", "synchronous_commit", "fsync", "shared_buffers", "max_wal_size")


@contextmanager
def server(folder: Path, url: str = "") -> Iterator[str]:
    """URL of a running server."""
    if url:
        yield url
        return
    try:
        with warnings.catch_warnings():
            # The wheel asks for the user's runtime folder, which a bare container does not name.
            warnings.simplefilter("ignore")
            from pgserver.postgres_server import get_server  # noqa: PLC0415 - a wheel of its own
    except ImportError as error:
        raise SageError(f"no PostgreSQL: {error}; pip install sage-bench[jobs], or give --postgres URL") from None
    started = get_server(str(folder), cleanup_mode="delete")
    try:
        yield str(started.get_uri())
    finally:
        started.cleanup()


@contextmanager
def schema(url: str, name: str) -> Iterator[str]:
    """URL of a schema of its own on the server, dropped afterwards."""
    import psycopg  # noqa: PLC0415 - comes with sage-core[postgres]

    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(f'CREATE SCHEMA "{name}"')
        try:
            yield f"{url}{'&' if '?' in url else '?'}options=-csearch_path%3D{name}"
        finally:
            connection.execute(f'DROP SCHEMA "{name}" CASCADE')


@contextmanager
def database(url: str, name: str) -> Iterator[str]:
    """URL of a database of its own on the server, dropped afterwards."""
    import psycopg  # noqa: PLC0415 - comes with sage-core[postgres]

    parts = urlsplit(url)
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(f'CREATE DATABASE "{name}"')
        try:
            yield urlunsplit(parts._replace(path=f"/{name}"))
        finally:
            connection.execute(f'DROP DATABASE "{name}" WITH (FORCE)')


def settings(url: str) -> dict[str, str]:
    """What of the server's settings moves a figure."""
    import psycopg  # noqa: PLC0415 - comes with sage-core[postgres]

    with psycopg.connect(url) as connection:
        return {name: str(connection.execute(f"SHOW {name}").fetchall()[0][0]) for name in SETTINGS}
