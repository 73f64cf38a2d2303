"""Upgrades of databases that hold rows, on both databases; PostgreSQL's snapshot is what its migrations make."""

from __future__ import annotations

from pathlib import Path

import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext

from sage_core.platform.database import Dialect
from sage_core.platform.migrate import downgrade, engine, upgrade
from sage_core.platform.schema import HEAD
from sage_core.platform.spelling import DIALECTS
from sage_core.platform.store import JobStore
from sage_core.platform.tables import metadata
from sage_core.testing.store_suite import LONG, finish
from tests.postgres import schema_url


@pytest.fixture(params=DIALECTS)
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    dialect: Dialect = request.param
    return f"sqlite:///{tmp_path}/s.db" if dialect == "sqlite" else schema_url(tmp_path)


def fill(url: str) -> None:
    """A finished run and one that has a job done, one running and one waiting, as the first schema holds them."""
    made = engine(url)
    with made.begin() as connection:
        tables = sa.MetaData()
        tables.reflect(connection)
        run, job, edge = (tables.tables[name] for name in ("run", "job", "edge"))
        blobs = dict.fromkeys(("graph", "plan", "params", "options"), b"x")
        for number, (id, status) in enumerate((("old", "succeeded"), ("run", "running"))):
            connection.execute(
                run.insert().values(
                    id=id,
                    workflow="flow",
                    status=status,
                    session=1,
                    error="",
                    created_at=number,
                    finished_at=1 if status == "succeeded" else None,
                    graph_hash="h",
                    supervisor="gone",
                    **blobs,
                )
            )
        for number, (state, fence) in enumerate((("done", 1), ("running", 4), ("blocked", 0)), 1):
            connection.execute(
                job.insert().values(
                    id=number,
                    run_id="run",
                    stage="s",
                    part=number,
                    start=0,
                    stop=1,
                    queue="default",
                    state=state,
                    rank=0.5,
                    run_at=1,
                    attempt=1,
                    max_attempts=3,
                    fence=fence,
                    worker="gone",
                    claimed_at=1,
                    lease_until=1 if state == "running" else None,
                    deps_left=1 if state == "blocked" else 0,
                    reused=False,
                    error="",
                )
            )
        connection.execute(edge.insert().values(before_id=2, after_id=3, released=False))
        if made.dialect.name == "postgresql":
            connection.execute(sa.text("SELECT setval(pg_get_serial_sequence('job', 'id'), 3)"))
    made.dispose()


def test_rows_of_the_first_schema_live_on_in_the_newest(url: str) -> None:
    upgrade(url, "0001")
    fill(url)
    # Opening is upgrading.
    with JobStore.open(url) as store:
        assert [(run.id, run.status, run.queue, bool(run.pins)) for run in store.runs()] == [
            ("run", "running", "default", False),
            ("old", "succeeded", "default", False),
        ]
        assert [(j.state, j.fence, j.needs, j.limit_key, j.failures) for j in store.jobs("run")] == [
            ("done", 1, "", None, 0),
            ("running", 4, "", None, 0),
            ("blocked", 0, "", None, 0),
        ]
        assert store.runs_unheard(for_ms=0) == [], "what ended before is not told once more"
        # The lease is long over: the job is taken back under a higher fence, and what waits for it follows.
        [job] = store.claim("w", lease_ms=LONG, limit=9)
        assert (job.id, job.fence) == (2, 5)
        assert [row.id for row in finish(store, job)] == [3]
        store.finish_run("run", "succeeded")
        assert [queue.name for queue in store.queues()] == []


def test_a_downgrade_keeps_what_the_first_schema_knows(url: str) -> None:
    upgrade(url, "0001")
    fill(url)
    upgrade(url)
    downgrade(url, "0001")
    made = engine(url)
    with made.connect() as connection:
        rows = connection.exec_driver_sql("SELECT id, status FROM run ORDER BY id").all()
        states = connection.exec_driver_sql("SELECT state, fence FROM job ORDER BY id").all()
    made.dispose()
    assert [tuple(row) for row in rows] == [("old", "succeeded"), ("run", "running")]
    assert [tuple(row) for row in states] == [("done", 1), ("running", 4), ("blocked", 0)]
    with JobStore.open(url) as store:
        assert len(store.jobs("run")) == 3


# ------------------------------------------------------------ PostgreSQL's own


def described(url: str) -> dict[str, object]:
    """Columns, keys, indexes and views as PostgreSQL itself reports them."""
    made = engine(url)
    questions = {
        "columns": "SELECT table_name, column_name, data_type, is_nullable, column_default"
        " FROM information_schema.columns WHERE table_schema = current_schema() ORDER BY 1, 2",
        "constraints": "SELECT conrelid::regclass::text, conname, pg_get_constraintdef(oid) FROM pg_constraint"
        " WHERE connamespace = current_schema()::regnamespace ORDER BY 1, 2",
        "indexes": "SELECT tablename, indexname, regexp_replace(indexdef, ' ON \\S+\\.', ' ON ') FROM pg_indexes"
        " WHERE schemaname = current_schema() ORDER BY 1, 2",
        "views": "SELECT viewname, definition FROM pg_views WHERE schemaname = current_schema() ORDER BY 1",
        "settings": "SELECT key, value FROM setting ORDER BY 1",
        "revision": "SELECT version_num FROM alembic_version",
    }
    with made.connect() as connection:
        found: dict[str, object] = {}
        for name, question in questions.items():
            rows = connection.exec_driver_sql(question).all()
            assert rows, name
            found[name] = [tuple(str(cell) for cell in row) for row in rows]
    made.dispose()
    return found


@pytest.fixture
def migrated(tmp_path: Path) -> str:
    url = schema_url(tmp_path / "migrated")
    upgrade(url)
    return url


def test_the_postgresql_snapshot_is_what_the_migrations_make(migrated: str, tmp_path: Path) -> None:
    opened = schema_url(tmp_path / "opened")
    JobStore.open(opened).close()
    one, two = described(migrated), described(opened)
    for name in one:
        assert one[name] == two[name], name


def test_postgresql_migrations_make_what_the_tables_say(migrated: str) -> None:
    made = engine(migrated)
    with made.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True, "compare_server_default": True})
        assert compare_metadata(context, metadata) == []
        connection.rollback()
        connection.exec_driver_sql("DROP INDEX ix_job_lease")
        assert [step[0] for step in compare_metadata(MigrationContext.configure(connection), metadata)] == ["add_index"]
    made.dispose()


def test_postgresql_goes_up_and_down_and_up(migrated: str) -> None:
    before = described(migrated)
    downgrade(migrated, "base")
    made = engine(migrated)
    with made.connect() as connection:
        left = connection.exec_driver_sql(
            "SELECT tablename FROM pg_tables WHERE schemaname = current_schema()"
        ).scalars()
        assert {*left} == {"alembic_version"}
    made.dispose()
    upgrade(migrated)
    assert described(migrated) == before
    assert before["revision"] == [(HEAD,)]
