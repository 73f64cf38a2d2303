"""Upgrades a store's schema with Alembic: ``python -m sage_core.platform.migrate URL [REVISION]``."""

from __future__ import annotations

import sys
from pathlib import Path

import sqlalchemy as sa
from alembic import command
from alembic.config import Config

from sage_core.common.errors import StoreError
from sage_core.platform.database import SCHEMA_LOCK, dialect_of, mask
from sage_core.platform.sqlite import sqlite_path


def scripts() -> Path:
    """Find the migrations: inside an installed package, else beside it in a checkout."""
    package = Path(__file__).parents[1]
    for folder in (package / "migrations", package.parent / "migrations"):
        if (folder / "env.py").exists():
            return folder
    raise StoreError(str(package), "the migrations are missing from this installation", "install sage-core again")


def configuration(connection: sa.Connection) -> Config:
    """Alembic's settings for a connection we hold."""
    config = Config()
    config.set_main_option("script_location", str(scripts()).replace("%", "%%"))
    config.attributes["connection"] = connection
    return config


def engine(url: str) -> sa.Engine:
    """Make an engine whose transactions cover schema changes."""
    if dialect_of(url) == "postgresql":
        return sa.create_engine(sa.make_url(url).set(drivername="postgresql+psycopg"))
    made = sa.create_engine(sa.URL.create("sqlite", database=str(sqlite_path(url))), connect_args={"timeout": 30})

    # The driver starts no transaction for DDL by itself, and a half-made upgrade would be left behind.
    @sa.event.listens_for(made, "connect")
    def _connected(connection: sa.engine.interfaces.DBAPIConnection, _record: object) -> None:
        connection.isolation_level = None

    @sa.event.listens_for(made, "begin")
    def _begun(connection: sa.Connection) -> None:
        connection.exec_driver_sql("BEGIN IMMEDIATE")

    return made


def upgrade(url: str, revision: str = "head") -> None:
    """Bring the database up to `revision` in one transaction; a process that comes second finds nothing to do."""
    made = engine(url)
    try:
        with made.begin() as connection:
            if made.dialect.name == "postgresql":
                connection.execute(sa.text(f"SELECT pg_advisory_xact_lock({SCHEMA_LOCK})"))
            command.upgrade(configuration(connection), revision)
    except sa.exc.SQLAlchemyError as error:
        # The driver's own words, without the statement.
        problem = mask(str(getattr(error, "orig", None) or error)).splitlines()[0]
        raise StoreError(mask(url), f"the upgrade to {revision} failed: {problem}") from error
    finally:
        made.dispose()


def downgrade(url: str, revision: str) -> None:
    """Take the database back to `revision`; ``base`` removes the schema with everything in it."""
    made = engine(url)
    try:
        with made.begin() as connection:
            command.downgrade(configuration(connection), revision)
    finally:
        made.dispose()


if __name__ == "__main__":
    upgrade(*sys.argv[1:3])
