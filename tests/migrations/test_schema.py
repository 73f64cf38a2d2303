"""Migrations, tables and the checked-in snapshot describe one schema."""

from __future__ import annotations

import re
import sqlite3
from pathlib import Path

import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory

from sage_core.common.errors import StoreError
from sage_core.platform.migrate import configuration, downgrade, engine, scripts, upgrade
from sage_core.platform.schema import HEAD
from sage_core.platform.store import JobStore
from sage_core.platform.tables import metadata

Schema = dict[tuple[str, str], str]


def schema(path: Path) -> Schema:
    """Every table and index as (type, name) → its text without layout."""
    with sqlite3.connect(path) as connection:
        rows = connection.execute("SELECT type, name, sql FROM sqlite_master WHERE sql IS NOT NULL").fetchall()
    connection.close()
    return {(kind, name): re.sub(r"[\s\"]+", "", sql) for kind, name, sql in rows if not name.startswith("sqlite_")}


def described(path: Path) -> dict[str, list[tuple[object, ...]]]:
    """Columns, foreign keys and index columns as SQLite itself reports them."""
    with sqlite3.connect(path) as connection:
        names = [row[0] for row in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        found = {
            # The first column only numbers the rows, in the order of their creation.
            f"{pragma} {name}": sorted((row[1:] for row in connection.execute(f"PRAGMA {pragma}({name})")), key=repr)
            for name in names
            for pragma in ("table_xinfo", "foreign_key_list", "index_list")
        }
    connection.close()
    return found


def without_alembic(found: Schema) -> Schema:
    return {key: text for key, text in found.items() if key[1] != "alembic_version"}


@pytest.fixture
def migrated(tmp_path: Path) -> Path:
    path = tmp_path / "migrated.db"
    upgrade(f"sqlite:///{path}")
    return path


@pytest.fixture
def created(tmp_path: Path) -> Path:
    path = tmp_path / "created.db"
    made = engine(f"sqlite:///{path}")
    with made.begin() as connection:
        metadata.create_all(connection)
    made.dispose()
    return path


@pytest.fixture
def opened(tmp_path: Path) -> Path:
    path = tmp_path / "opened.db"
    JobStore.open(f"sqlite:///{path}").close()
    return path


def test_migrations_make_what_the_tables_say(migrated: Path, created: Path) -> None:
    made = engine(f"sqlite:///{migrated}")
    with made.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True, "compare_server_default": True})
        assert compare_metadata(context, metadata) == []
    made.dispose()
    assert without_alembic(schema(migrated)).keys() == schema(created).keys()
    one, two = described(migrated), described(created)
    assert {key: value for key, value in one.items() if "alembic_version" not in key} == two
    indexes = [{k: text for k, text in schema(path).items() if k[0] == "index"} for path in (migrated, created)]
    assert indexes[0] == indexes[1]


def test_a_difference_would_be_noticed(migrated: Path, created: Path) -> None:
    for path in (migrated, created):
        with sqlite3.connect(path) as connection:
            connection.execute("DROP INDEX ix_job_lease")
        connection.close()
    made = engine(f"sqlite:///{migrated}")
    with made.connect() as link:
        assert [step[0] for step in compare_metadata(MigrationContext.configure(link), metadata)] == ["add_index"]
    made.dispose()


def test_the_snapshot_is_what_the_migrations_make(migrated: Path, opened: Path) -> None:
    assert schema(opened).keys() == schema(migrated).keys()
    assert described(opened) == described(migrated)
    indexes = [{k: text for k, text in schema(path).items() if k[0] == "index"} for path in (opened, migrated)]
    assert indexes[0] == indexes[1]
    for table in ("setting", "alembic_version"):
        rows = []
        for path in (opened, migrated):
            with sqlite3.connect(path) as connection:
                rows.append(connection.execute(f"SELECT * FROM {table}").fetchall())
            connection.close()
        assert rows[0] == rows[1] != []


def test_up_down_up(migrated: Path) -> None:
    before = schema(migrated)
    downgrade(f"sqlite:///{migrated}", "base")
    assert schema(migrated).keys() == {("table", "alembic_version")}
    upgrade(f"sqlite:///{migrated}")
    assert schema(migrated) == before
    with JobStore.open(f"sqlite:///{migrated}") as store:
        assert store.runs() == []


def test_the_head_is_the_newest_migration(migrated: Path) -> None:
    made = engine(f"sqlite:///{migrated}")
    with made.connect() as connection:
        script = ScriptDirectory.from_config(configuration(connection))
    made.dispose()
    assert script.get_heads() == [HEAD]
    # Revisions are compared as text to tell a newer store from an older one.
    revisions = [revision.revision for revision in script.walk_revisions()]
    assert revisions == sorted(revisions, reverse=True)
    assert all(re.fullmatch(r"\d{4}", revision) for revision in revisions)


def test_an_upgrade_that_fails_changes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "taken.db"
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE job (mine INTEGER)")
    connection.close()
    before = schema(path)
    with pytest.raises(StoreError, match="the upgrade to head failed"):
        upgrade(f"sqlite:///{path}")
    assert schema(path) == before


def test_the_migrations_are_found() -> None:
    assert (scripts() / "versions").is_dir()
    assert sa.__version__ >= "2"
