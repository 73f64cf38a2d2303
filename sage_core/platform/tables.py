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
    sa.Column("queue", sa.Text, nullable=False, server_default="default"),
    sa.Column("priority", sa.Integer, nullable=False, server_default="0"),
    sa.Column("unique_key", sa.Text),
    sa.Column("idempotency_key", sa.Text),
    sa.Column("pins", sa.LargeBinary, nullable=False, server_default=sa.text("''")),
    sa.Column("deployment", sa.Text),
    sa.Column("forked_from", sa.Text),
    # The last session whose end the plugins have heard of.
    sa.Column("announced", sa.Integer, nullable=False, server_default="0"),
    sa.Index("ix_run_created_at", "created_at"),
)
_live = sa.text("status IN ('queued', 'running')")
sa.Index("uq_run_unique_key", run.c.unique_key, unique=True, sqlite_where=_live, postgresql_where=_live)
sa.Index("ix_run_live", run.c.queue, run.c.created_at, sqlite_where=_live, postgresql_where=_live)
_unheard = sa.text("finished_at IS NOT NULL AND announced < session")
sa.Index("ix_run_unheard", run.c.finished_at, sqlite_where=_unheard, postgresql_where=_unheard)
sa.Index("uq_run_idempotency_key", run.c.idempotency_key, unique=True)

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
    # Placement: the node meant to take the job, and until when no other may; while it runs, the node it runs on.
    sa.Column("node", sa.Text),
    sa.Column("node_until", sa.BigInteger),
    # What the job asks of a node, as canonical JSON; empty is nothing in particular.
    sa.Column("needs", sa.Text, nullable=False, server_default=sa.text("''")),
    # Whoever runs the job holds one slot of this key.
    sa.Column("limit_key", sa.Text),
    # Rows that failed and were skipped in the result.
    sa.Column("failures", sa.Integer, nullable=False, server_default="0"),
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
_needy = sa.text("state = 'ready' AND needs <> ''")
sa.Index("ix_job_needs", job.c.needs, sqlite_where=_needy, postgresql_where=_needy)
_limited = sa.text("state = 'ready' AND limit_key IS NOT NULL")
sa.Index("ix_job_limited", job.c.limit_key, sqlite_where=_limited, postgresql_where=_limited)
_failed = sa.text("state = 'failed'")
sa.Index("ix_job_failed", job.c.run_id, sqlite_where=_failed, postgresql_where=_failed)
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
    sa.Column("node", sa.Text, nullable=False, server_default=sa.text("''")),
    sa.Column("queue", sa.Text, nullable=False, server_default=sa.text("''")),
    # Cold start in ms by phase, as JSON: spawn, import, plugins, model.
    sa.Column("phases", sa.Text, nullable=False, server_default=sa.text("''")),
)

queue = sa.Table(
    "queue",
    metadata,
    sa.Column("name", sa.Text, primary_key=True),
    sa.Column("paused", sa.Boolean, nullable=False),
    sa.Column("changed_at", sa.BigInteger, nullable=False),
)

# A slot is taken while its job runs under its fence: it needs no lease of its own, and nobody has to free it.
slot = sa.Table(
    "slot",
    metadata,
    sa.Column("key", sa.Text, primary_key=True),
    # Counted from 0; below it are those that are left over from a larger count while their jobs run.
    sa.Column("n", sa.BigInteger, primary_key=True),
    sa.Column("job_id", sa.BigInteger),
    sa.Column("fence", sa.BigInteger),
    sqlite_with_rowid=False,
)

# The attempt that computes a result; it counts while its job runs under its fence.
computing = sa.Table(
    "computing",
    metadata,
    sa.Column("key", sa.Text, primary_key=True),
    sa.Column("job_id", sa.BigInteger, nullable=False),
    sa.Column("fence", sa.BigInteger, nullable=False),
    sqlite_with_rowid=False,
)

node = sa.Table(
    "node",
    metadata,
    sa.Column("name", sa.Text, primary_key=True),
    # The supervisor that speaks for the node: fresh at every start.
    sa.Column("supervisor", sa.Text, nullable=False),
    sa.Column("host", sa.Text, nullable=False),
    # Capacity, labels and loaded models: a `records.Node` as JSON.
    sa.Column("body", sa.Text, nullable=False),
    # The node's clock minus the database's, in ms, when it last spoke.
    sa.Column("clock_ms", sa.BigInteger, nullable=False),
    sa.Column("started_at", sa.BigInteger, nullable=False),
    sa.Column("heartbeat_at", sa.BigInteger, nullable=False),
    sa.Column("stopped_at", sa.BigInteger),
)

# Who may start workers for a queue on a node, so that many enqueues start one supervisor.
spawn = sa.Table(
    "spawn",
    metadata,
    sa.Column("node", sa.Text, primary_key=True),
    sa.Column("queue", sa.Text, primary_key=True),
    sa.Column("holder", sa.Text, nullable=False),
    sa.Column("until", sa.BigInteger, nullable=False),
)

deployment = sa.Table(
    "deployment",
    metadata,
    sa.Column("name", sa.Text, primary_key=True),
    sa.Column("version", sa.Integer, nullable=False),
    sa.Column("workflow", sa.Text, nullable=False),
    sa.Column("graph", sa.LargeBinary, nullable=False),
    sa.Column("graph_hash", sa.Text, nullable=False),
    sa.Column("params", sa.LargeBinary, nullable=False),
    sa.Column("options", sa.LargeBinary, nullable=False),
    sa.Column("queue", sa.Text, nullable=False),
    sa.Column("created_at", sa.BigInteger, nullable=False),
)

schedule = sa.Table(
    "schedule",
    metadata,
    sa.Column("id", sa.Text, primary_key=True),
    sa.Column("deployment", sa.Text, sa.ForeignKey("deployment.name", ondelete="CASCADE"), nullable=False),
    # The trigger as the workflow declares it, as JSON.
    sa.Column("spec", sa.Text, nullable=False),
    sa.Column("paused", sa.Boolean, nullable=False),
    # The next fire time, epoch ms; null when there is none.
    sa.Column("next_at", sa.BigInteger),
    sa.Column("created_at", sa.BigInteger, nullable=False),
    sa.Index("ix_schedule_next_at", "next_at"),
)

# One row per fire time, inserted with its run: two schedulers cannot both fire it.
fire = sa.Table(
    "fire",
    metadata,
    sa.Column("schedule", sa.Text, sa.ForeignKey("schedule.id", ondelete="CASCADE"), primary_key=True),
    sa.Column("fire_at", sa.BigInteger, primary_key=True),
    sa.Column("outcome", sa.Text, nullable=False),
    sa.Column("run_id", sa.Text),
    sa.Column("fired_at", sa.BigInteger, nullable=False),
    # Why no run could be made.
    sa.Column("error", sa.Text, nullable=False, server_default=sa.text("''")),
    sa.Index("ix_fire_run_id", "run_id"),
)

# Files that machines share through the database, in pieces, where they share no disk.
blob = sa.Table(
    "blob",
    metadata,
    sa.Column("digest", sa.Text, primary_key=True),
    sa.Column("n", sa.Integer, primary_key=True),
    sa.Column("body", sa.LargeBinary, nullable=False),
    sa.Column("created_at", sa.BigInteger, nullable=False),
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

#: The database's clock, epoch ms, by dialect; `unixepoch('subsec')` is NULL before SQLite 3.42: it would match nothing.
NOW = {
    "sqlite": "CAST((julianday('now') - 2440587.5) * 86400000.0 AS INTEGER)",
    "postgresql": "CAST(extract(epoch FROM statement_timestamp()) * 1000 AS BIGINT)",
}
#: Views for other tools, such as an autoscaler: name → its select, in which ``{now}`` is the clock.
VIEWS = {
    # Ready is what a worker could claim now; delayed what is due later; held what a paused queue keeps back.
    "sage_queue_depth": (
        "SELECT job.queue AS queue,"
        " SUM(CASE WHEN state = 'ready' AND paused IS NOT TRUE AND run_at <= {now} THEN 1 ELSE 0 END) AS ready,"
        " SUM(CASE WHEN state = 'ready' AND paused IS NOT TRUE AND run_at > {now} THEN 1 ELSE 0 END) AS delayed,"
        " SUM(CASE WHEN state = 'ready' AND paused THEN 1 ELSE 0 END) AS held,"
        " SUM(CASE WHEN state = 'running' THEN 1 ELSE 0 END) AS running,"
        " SUM(CASE WHEN state = 'blocked' THEN 1 ELSE 0 END) AS blocked,"
        " MIN(CASE WHEN state = 'ready' THEN run_at END) AS oldest_run_at"
        " FROM job LEFT JOIN queue ON queue.name = job.queue"
        " WHERE state IN ('ready', 'running', 'blocked') GROUP BY job.queue"
    ),
}
for _dialect, _now in NOW.items():
    for _name, _text in VIEWS.items():
        _made = sa.DDL(f"CREATE VIEW {_name} AS {_text.format(now=_now)}")  # type: ignore[no-untyped-call]
        sa.event.listen(metadata, "after_create", _made.execute_if(dialect=_dialect))
