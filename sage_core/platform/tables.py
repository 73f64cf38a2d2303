"""The store's schema as SQLAlchemy tables: the truth that migrations, statements and snapshots are held against.

Imported only where the schema is created, upgraded or compiled; SQLAlchemy is too slow an import for the hot path.
"""

from __future__ import annotations

import sqlalchemy as sa

#: Alembic's own table is created by Alembic; every other one is here.
metadata = sa.MetaData(
    naming_convention={
        "pk": "pk_%(table_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s",
    }
)

# SQLite gives AUTOINCREMENT to `INTEGER PRIMARY KEY` only.
JobId = sa.BigInteger().with_variant(sa.Integer(), "sqlite")

setting = sa.Table(
    "setting",
    metadata,
    sa.Column("key", sa.Text, primary_key=True),
    sa.Column("value", sa.Text, nullable=False),
)

run = sa.Table(
    "run",
    metadata,
    sa.Column("id", sa.Text, primary_key=True),
    sa.Column("workflow", sa.Text, nullable=False),
    sa.Column("status", sa.Text, nullable=False),
    sa.Column("session", sa.Integer, nullable=False),
    sa.Column("graph", sa.LargeBinary, nullable=False),
    sa.Column("plan", sa.LargeBinary, nullable=False),
    sa.Column("params", sa.LargeBinary, nullable=False),
    sa.Column("options", sa.LargeBinary, nullable=False),
    sa.Column("outputs", sa.LargeBinary),
    sa.Column("error", sa.Text, nullable=False),
    sa.Column("created_at", sa.BigInteger, nullable=False),
    sa.Column("started_at", sa.BigInteger),
    sa.Column("finished_at", sa.BigInteger),
    sa.Column("graph_hash", sa.Text, nullable=False),
    sa.Column("supervisor", sa.Text, nullable=False),
    sa.Index("ix_run_created_at", "created_at"),
)

job = sa.Table(
    "job",
    metadata,
    sa.Column("id", JobId, primary_key=True),
    sa.Column("run_id", sa.Text, sa.ForeignKey("run.id", ondelete="CASCADE"), nullable=False),
    sa.Column("stage", sa.Text, nullable=False),
    sa.Column("part", sa.Integer, nullable=False),
    sa.Column("start", sa.BigInteger, nullable=False),
    sa.Column("stop", sa.BigInteger, nullable=False),
    sa.Column("queue", sa.Text, nullable=False),
    sa.Column("state", sa.Text, nullable=False),
    sa.Column("rank", sa.Double, nullable=False),
    sa.Column("run_at", sa.BigInteger, nullable=False),
    sa.Column("attempt", sa.Integer, nullable=False),
    sa.Column("max_attempts", sa.Integer, nullable=False),
    sa.Column("fence", sa.BigInteger, nullable=False),
    sa.Column("timeout_ms", sa.BigInteger),
    sa.Column("claimed_at", sa.BigInteger),
    sa.Column("lease_until", sa.BigInteger),
    sa.Column("deadline_at", sa.BigInteger),
    sa.Column("worker", sa.Text),
    sa.Column("deps_left", sa.Integer, nullable=False),
    sa.Column("result_key", sa.Text),
    sa.Column("reused", sa.Boolean, nullable=False),
    sa.Column("session", sa.Integer),
    sa.Column("error", sa.Text, nullable=False),
    sa.UniqueConstraint("run_id", "stage", "part"),
    # A reused id would let a zombie's (id, fence) match another run's job.
    sqlite_autoincrement=True,
)

# Partial indexes hold only live jobs, so they stay small however long the history grows.
_ready = sa.text("state = 'ready'")
_running = sa.text("state = 'running'")
sa.Index("ix_job_ready", job.c.queue, job.c.rank, job.c.run_at, job.c.id, sqlite_where=_ready, postgresql_where=_ready)
sa.Index(
    "ix_job_ready_run",
    *(job.c.run_id, job.c.queue, job.c.rank, job.c.run_at, job.c.id),
    sqlite_where=_ready,
    postgresql_where=_ready,
)
sa.Index("ix_job_lease", job.c.lease_until, sqlite_where=_running, postgresql_where=_running)

edge = sa.Table(
    "edge",
    metadata,
    sa.Column("before_id", JobId, sa.ForeignKey("job.id", ondelete="CASCADE"), primary_key=True),
    sa.Column("after_id", JobId, sa.ForeignKey("job.id", ondelete="CASCADE"), primary_key=True),
    # Set once when the edge's count is taken from its successor, so that releasing twice counts once.
    sa.Column("released", sa.Boolean, nullable=False),
    sa.Index("ix_edge_after_id", "after_id"),
    sqlite_with_rowid=False,
)

attempt = sa.Table(
    "attempt",
    metadata,
    sa.Column("job_id", JobId, sa.ForeignKey("job.id", ondelete="CASCADE"), primary_key=True),
    sa.Column("fence", sa.BigInteger, primary_key=True),
    sa.Column("attempt", sa.Integer, nullable=False),
    sa.Column("worker", sa.Text, nullable=False),
    sa.Column("started_at", sa.BigInteger, nullable=False),
    sa.Column("finished_at", sa.BigInteger, nullable=False),
    sa.Column("outcome", sa.Text, nullable=False),
    sa.Column("error", sa.Text, nullable=False),
    sqlite_with_rowid=False,
)

result = sa.Table(
    "result",
    metadata,
    sa.Column("key", sa.Text, primary_key=True),
    sa.Column("run_id", sa.Text, nullable=False),
    sa.Column("body", sa.LargeBinary, nullable=False),
    sa.Column("bytes", sa.BigInteger, nullable=False),
    sa.Column("created_at", sa.BigInteger, nullable=False),
    sa.Column("scope_run", sa.Text),
)

memo = sa.Table(
    "memo",
    metadata,
    sa.Column("key", sa.Text, primary_key=True),
    sa.Column("value", sa.LargeBinary, nullable=False),
    sa.Column("created_at", sa.BigInteger, nullable=False),
)

worker = sa.Table(
    "worker",
    metadata,
    sa.Column("id", sa.Text, primary_key=True),
    sa.Column("kind", sa.Text, nullable=False),
    sa.Column("host", sa.Text, nullable=False),
    sa.Column("boot_id", sa.Text, nullable=False),
    sa.Column("pid", sa.BigInteger, nullable=False),
    sa.Column("ticks", sa.BigInteger, nullable=False),
    sa.Column("started_at", sa.BigInteger, nullable=False),
    sa.Column("heartbeat_at", sa.BigInteger, nullable=False),
    sa.Column("stopped_at", sa.BigInteger),
)

file_digest = sa.Table(
    "file_digest",
    metadata,
    sa.Column("path", sa.Text, primary_key=True),
    sa.Column("size", sa.BigInteger, nullable=False),
    sa.Column("mtime_ns", sa.BigInteger, nullable=False),
    sa.Column("inode", sa.BigInteger, nullable=False),
    sa.Column("digest", sa.Text, nullable=False),
)
