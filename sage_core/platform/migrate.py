"""Upgrades a store's schema with Alembic: ``python -m sage_core.platform.migrate PATH [REVISION]``."""

from __future__ import annotations

import sys
from pathlib import Path

import sqlalchemy as sa
from alembic import command
from alembic.config import Config

from sage_core.common.errors import StoreError


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


def engine(path: Path) -> sa.Engine:
    """Make an engine for a SQLite file whose transactions cover schema changes."""
    made = sa.create_engine(sa.URL.create("sqlite", database=str(path)), connect_args={"timeout": 30})

    # The driver starts no transaction for DDL by itself, and a half-made upgrade would be left behind.
    @sa.event.listens_for(made, "connect")
    def _connected(connection: sa.engine.interfaces.DBAPIConnection, _record: object) -> None:
        connection.isolation_level = None

    @sa.event.listens_for(made, "begin")
    def _begun(connection: sa.Connection) -> None:
        connection.exec_driver_sql("BEGIN IMMEDIATE")

    return made


def upgrade(path: Path, revision: str = "head") -> None:
    """Bring the database up to `revision` in one transaction; a process that comes second finds nothing to do."""
    made = engine(path)
    try:
        with made.begin() as connection:
            command.upgrade(configuration(connection), revision)
    except sa.exc.SQLAlchemyError as error:
        raise StoreError(f"sqlite:///{path}", f"the upgrade to {revision} failed: {error}") from error
    finally:
        made.dispose()


def downgrade(path: Path, revision: str) -> None:
    """Take the database back to `revision`; ``base`` removes the schema with everything in it."""
    made = engine(path)
    try:
        with made.begin() as connection:
            command.downgrade(configuration(connection), revision)
    finally:
        made.dispose()


if __name__ == "__main__":
    upgrade(Path(sys.argv[1]), *sys.argv[2:3])
