"""What happens to a database when it is opened: made, kept, or refused untouched; tests/migrations has the upgrades."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from sage_core.common.errors import StoreError, StoreTooNew
from sage_core.platform.database import Database
from sage_core.platform.schema import BASE, HEAD, create, prepare, revision_of
from sage_core.platform.sqlite import connect


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "s.db"


@pytest.fixture
def database(path: Path) -> Iterator[Database]:
    made = connect(f"sqlite:///{path}", synchronous="NORMAL", statements={})
    yield made
    made.close()


def test_an_empty_database_is_filled_and_stamped_once(database: Database, path: Path) -> None:
    assert revision_of(database) is None
    prepare(database, f"sqlite:///{path}")
    assert revision_of(database) == HEAD
    made = database.tables()
    assert {"run", "job", "edge", "result", "alembic_version"} <= made
    # Another process may have been first.
    create(database)
    prepare(database, f"sqlite:///{path}")
    assert database.tables() == made
    assert database.run("SELECT version_num FROM alembic_version") == [(HEAD,)]


def test_a_database_with_alembics_empty_table_alone_is_before_the_first_revision(database: Database) -> None:
    database.run("CREATE TABLE alembic_version (version_num TEXT)")
    assert revision_of(database) == BASE


def test_a_newer_schema_is_refused_with_both_revisions(database: Database, path: Path) -> None:
    prepare(database, f"sqlite:///{path}")
    database.run("UPDATE alembic_version SET version_num = '9999'")
    with pytest.raises(StoreTooNew, match=rf"written by a newer SAGE \(schema 9999, this one reads {HEAD}\)"):
        prepare(database, f"sqlite:///{path}")


@pytest.mark.parametrize(
    "statements",
    [
        ["CREATE TABLE users (id)"],
        ["CREATE TABLE alembic_version (version_num TEXT)", "INSERT INTO alembic_version VALUES ('0001')"],
        [
            "CREATE TABLE alembic_version (version_num TEXT)",
            "INSERT INTO alembic_version VALUES ('0001')",
            "CREATE TABLE setting (key TEXT, value TEXT)",
            "INSERT INTO setting VALUES ('product', 'other')",
        ],
    ],
    ids=["tables", "another alembic", "another product"],
)
def test_a_database_that_others_made_is_refused_and_left_as_it_is(
    database: Database, path: Path, statements: list[str]
) -> None:
    for statement in statements:
        database.run(statement)
    before = database.tables()
    with pytest.raises(StoreError, match=r"a foreign database: it holds .* and was not made by SAGE"):
        prepare(database, f"sqlite:///{path}")
    assert database.tables() == before
