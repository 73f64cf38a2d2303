from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import sqlalchemy as sa
from sqlalchemy.dialects import sqlite

from sage_core.platform import compile as compiler
from sage_core.platform.database import Dialect
from sage_core.platform.queries import queries
from sage_core.platform.spelling import DIALECTS
from sage_core.platform.sqlite import SqliteDatabase
from sage_core.platform.store import JobStore


def test_the_checked_in_files_are_fresh(capsys: pytest.CaptureFixture[str]) -> None:
    stale = [path.name for path, text in compiler.outputs().items() if path.read_text() != text]
    assert stale == [], "run: python -m sage_core.platform.compile"
    assert compiler.main(["--check"]) == 0
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("dialect", DIALECTS)
def test_both_dialects_have_every_statement(dialect: Dialect) -> None:
    texts = compiler.statements(dialect)
    assert texts.keys() == JobStore.statements(dialect).keys()
    marker = r":\w+" if dialect == "sqlite" else r"%\(\w+\)s"
    assert all("?" not in text for text in texts.values())
    assert re.search(marker, texts["claim"])


def test_postgresql_claims_skip_what_others_hold() -> None:
    texts = compiler.statements("postgresql")
    assert "AS MATERIALIZED" in texts["claim"]
    assert "FOR UPDATE SKIP LOCKED" in texts["claim"]
    assert "FOR UPDATE" in texts["held_one"]


def test_the_clock_is_the_databases_and_needs_no_recent_sqlite() -> None:
    text = json.dumps(compiler.statements("sqlite"))
    assert "unixepoch" not in text
    assert "julianday('now')" in text


def test_a_value_that_hides_in_a_parameter_is_refused(tmp_path: Path) -> None:
    # What `statements` guards against: SQLAlchemy binds a plain Python value under a name nobody passes.
    compiled = sa.select(sa.column("x") + 1).compile(dialect=sqlite.dialect(paramstyle="named"))
    assert [value for value in compiled.params.values() if value is not None] == [1]
    for dialect in DIALECTS:
        for statement in queries(dialect).values():
            params = statement.compile(dialect=compiler.dialect_of(dialect)).params
            assert all(value is None for value in params.values())


def test_hot_statements_use_their_indexes(tmp_path: Path) -> None:
    with JobStore.open(f"sqlite:///{tmp_path}/s.db") as store:
        for name, index in [
            ("claim", "ix_job_ready "),
            ("claim_run", "ix_job_ready_run"),
            ("held_expired", "ix_job_lease"),
            ("edge_release", "PRIMARY KEY"),
        ]:
            text = store.statements("sqlite")[name]
            names = dict.fromkeys(re.findall(r":(\w+)", text), "1")
            assert isinstance(store._db, SqliteDatabase)
            plan = store._db.connection.execute(f"EXPLAIN QUERY PLAN {text}", names).fetchall()
            assert any(index in f"{row[3]} " for row in plan), (name, plan)
            assert not any(row[3].startswith("SCAN job") for row in plan), (name, plan)
