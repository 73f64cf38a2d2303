from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa

from sage_core.platform import tables as t
from sage_core.platform.compile import dialect_of
from sage_core.platform.database import Dialect
from sage_core.platform.migrate import engine
from sage_core.platform.spelling import DIALECTS, SKIP, Spelling, holds, lit, p
from tests.postgres import schema_url


@pytest.fixture(params=DIALECTS)
def dialect(request: pytest.FixtureRequest) -> Dialect:
    given: Dialect = request.param
    return given


@pytest.fixture
def link(dialect: Dialect, tmp_path: Path) -> Iterator[sa.Connection]:
    """A connection that rolls back what a test did."""
    made = engine(f"sqlite:///{tmp_path}/s.db" if dialect == "sqlite" else schema_url(tmp_path))
    with made.connect() as connection:
        t.metadata.create_all(connection)
        yield connection
    made.dispose()


def text(statement: sa.ClauseElement, dialect: Dialect) -> str:
    return " ".join(str(statement.compile(dialect=dialect_of(dialect))).split())


def test_a_constant_is_written_into_the_text(dialect: Dialect) -> None:
    assert text(sa.select(lit("ready"), lit(7)), dialect) == "SELECT 'ready', 7"


def test_the_clock_is_the_databases_in_epoch_milliseconds(link: sa.Connection, dialect: Dialect) -> None:
    now = link.execute(sa.select(Spelling(dialect).now)).scalar_one()
    other = "strftime('%s', 'now')" if dialect == "sqlite" else "extract(epoch FROM clock_timestamp())"
    assert abs(now / 1000 - float(link.execute(sa.text(f"SELECT {other}")).scalar_one())) < 10


def test_a_list_travels_as_one_parameter(link: sa.Connection, dialect: Dialect) -> None:
    s = Spelling(dialect)
    assert sorted(link.execute(s.listed("ids"), {"ids": "[3, 1, 9007199254740993]"}).scalars()) == [
        1,
        3,
        9007199254740993,
    ]
    assert list(link.execute(s.listed("keys", sa.Text), {"keys": '["a\'b", "é"]'}).scalars()) == ["a'b", "é"]
    assert list(link.execute(s.listed("ids"), {"ids": "[]"}).scalars()) == []


def test_pairs_travel_as_one_parameter(link: sa.Connection, dialect: Dialect) -> None:
    rows = link.execute(Spelling(dialect).pairs("pairs"), {"pairs": "[[1, 2], [3, 4]]"})
    assert sorted(tuple(row) for row in rows) == [(1, 2), (3, 4)]


def test_rows_are_read_from_one_parameter_with_their_types(link: sa.Connection, dialect: Dialect) -> None:
    columns = Spelling(dialect).given("given", sa.BigInteger, sa.Text, sa.Boolean)
    rows = link.execute(sa.select(*columns), {"given": '[[1, "a", true], [2, null, false]]'})
    assert sorted(tuple(row) for row in rows) == [(1, "a", True), (2, None, False)]


def test_the_first_rows_are_limited_by_a_parameter(link: sa.Connection, dialect: Dialect) -> None:
    s = Spelling(dialect)
    rows = link.execute(s.first(s.listed("ids").order_by(sa.text("1"))), {"ids": "[5, 4, 3]", "limit": 2})
    assert list(rows.scalars()) == [3, 4]


def test_an_insert_names_its_columns_and_leaves_out_what_the_database_gives(dialect: Dialect) -> None:
    s = Spelling(dialect)
    made = text(s.insert(t.queue, changed_at=s.now, paused=s.true), dialect)
    assert made.startswith("INSERT INTO queue (name, paused, changed_at) VALUES (")
    assert ("true" if dialect == "postgresql" else " 1,") in made
    assert text(s.insert(t.job, id=SKIP), dialect).startswith("INSERT INTO job (run_id, stage, part,")


def test_a_row_holds_while_its_job_runs_under_its_fence(link: sa.Connection, dialect: Dialect) -> None:
    s = Spelling(dialect)
    run = dict.fromkeys((c.name for c in t.run.c if not c.nullable), "")
    link.execute(
        t.run.insert().values(
            {**run, "id": "r", "session": 1, "created_at": 1, "priority": 0, "announced": 0, "graph": b""}
            | dict.fromkeys(("plan", "params", "options", "pins"), b"")
        )
    )
    job = {c.name: 0 for c in t.job.c if not c.nullable and c.name != "id"}
    words = {"run_id": "r", "stage": "s", "queue": "q", "error": "", "needs": "", "reused": False}
    for part, (state, fence) in enumerate((("running", 1), ("running", 2), ("ready", 1))):
        link.execute(
            t.job.insert().values({**job, **words, "id": part + 1, "part": part, "state": state, "fence": fence})
        )
        link.execute(t.slot.insert().values(key="k", n=part, job_id=part + 1, fence=1))
    link.execute(t.slot.insert().values(key="k", n=9, job_id=None, fence=None))
    held = sa.select(t.slot.c.n).where(t.slot.c.key == p("key"), holds(t.slot))
    assert list(link.execute(held, {"key": "k"}).scalars()) == [0]
    assert text(s.insert(t.slot), dialect).startswith("INSERT INTO slot")
