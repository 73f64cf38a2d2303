"""Brings a database to this SAGE's schema: an unknown one is refused, an empty one filled, an older one upgraded."""

from __future__ import annotations

from pathlib import Path

from sage_core.common.errors import StoreError, StoreTooNew
from sage_core.platform.database import SCHEMA_LOCK, Database

#: The revision this code reads and writes: the newest file in `migrations/versions`.
HEAD = "0002"
#: What comes before the first revision: Alembic's table and nothing else.
BASE = ""


def prepare(database: Database, url: str) -> None:
    """Create or upgrade the schema as needed; costs one query where nothing is."""
    revision = revision_of(database)
    if revision == HEAD:
        return
    if revision is None:
        create(database)
    elif revision > HEAD:
        raise StoreTooNew(
            database.url,
            f"written by a newer SAGE (schema {revision}, this one reads {HEAD})",
            "upgrade SAGE, or use another store",
        )
    else:
        # Alembic and SQLAlchemy cost 300 ms of import, and an upgrade is rare.
        from sage_core.platform.migrate import upgrade  # noqa: PLC0415

        upgrade(url)


def revision_of(database: Database) -> str | None:
    """Return the schema's revision, or None for an empty database; anything not ours is an error."""
    names = database.tables()
    if not names:
        return None
    if names <= {"alembic_version", "sqlite_sequence"} and not database.run("SELECT * FROM alembic_version"):
        return BASE
    if {"alembic_version", "setting"} <= names:
        rows = database.run(
            "SELECT version_num FROM alembic_version WHERE EXISTS"
            " (SELECT 1 FROM setting WHERE key = 'product' AND value = 'sage')"
        )
        if rows:
            return str(rows[0][0])
    raise StoreError(
        database.url,
        f"a foreign database: it holds {', '.join(sorted(names)[:5])} and was not made by SAGE",
        "choose another path, database or schema; nothing was changed in this one",
    )


def create(database: Database) -> None:
    """Fill an empty database from the snapshot of what the migrations make, and stamp it."""
    database.begin()
    try:
        database.lock_schema(SCHEMA_LOCK)
        # Another process may have been first.
        if revision_of(database) is None:
            script = Path(__file__).with_name(f"schema_{database.dialect}.sql").read_text(encoding="utf-8")
            for statement in script.split(";\n"):
                database.run(statement)
            key = "CONSTRAINT alembic_version_pkc PRIMARY KEY (version_num)"
            database.run(f"CREATE TABLE alembic_version (version_num VARCHAR(32) NOT NULL, {key})")
            database.run(f"INSERT INTO alembic_version VALUES ('{HEAD}')")
        database.commit()
    except BaseException:
        database.rollback()
        raise
