"""The store's statements in SQLAlchemy Core, one dictionary per dialect; `compile` turns them into checked-in text.

Lists travel as one JSON parameter, so each statement has one text however many rows it is asked for, and no list
meets a database's limit on bound variables. The database's clock is the only clock.
"""

from __future__ import annotations

from typing import Any, Literal

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite

from sage_core.platform import tables as t
from sage_core.platform.records import AttemptRow, FileDigest, JobRow, StoredRun, WorkerRow

Dialect = Literal["sqlite", "postgresql"]
DIALECTS: tuple[Dialect, ...] = ("sqlite", "postgresql")

# The column order of a statement is the field order of the record it fills.
JOB = [t.job.c[name] for name in JobRow.__struct_fields__]
RUN = [t.run.c[name] for name in StoredRun.__struct_fields__]
ATTEMPT = [t.attempt.c[name] for name in AttemptRow.__struct_fields__]
WORKER = [t.worker.c[name] for name in WorkerRow.__struct_fields__]
FILE = [t.file_digest.c[name] for name in FileDigest.__struct_fields__]
#: What the end of an attempt is decided from: `attempts.Held`.
HELD = [t.job.c[name] for name in ("id", "fence", "attempt", "max_attempts", "worker", "claimed_at", "deadline_at")]


#: Marks a column that an insert leaves to the database.
SKIP = object()


def lit(value: str | int) -> sa.ColumnClause[Any]:
    """Write a constant into the text: SQLite uses a partial index only for a literal condition."""
    return sa.literal_column(repr(value))


def p(name: str, type_: Any = None) -> sa.BindParameter[Any]:
    """Name a parameter."""
    return sa.bindparam(name, type_=type_)


class Spelling:
    """What the two databases spell differently."""

    def __init__(self, dialect: Dialect) -> None:
        self.dialect = dialect
        # `unixepoch('subsec')` returns NULL before SQLite 3.42, and a claim would match nothing.
        now = "CAST((julianday('now') - 2440587.5) * 86400000.0 AS INTEGER)"
        if dialect == "postgresql":
            now = "CAST(extract(epoch FROM statement_timestamp()) * 1000 AS BIGINT)"
        self.now: sa.ColumnClause[int] = sa.literal_column(now, sa.BigInteger)

        # SQLite has no booleans, and SQLAlchemy would bind them as parameters.
        self.false: Any = sa.false() if dialect == "postgresql" else lit(0)
        self.true: Any = sa.true() if dialect == "postgresql" else lit(1)

    def listed(self, name: str, type_: Any = sa.BigInteger) -> sa.Select[Any]:
        """Select the items of a JSON list parameter."""
        if self.dialect == "sqlite":
            return sa.select(sa.func.json_each(p(name)).table_valued("value").c.value)
        each = sa.func.jsonb_array_elements_text(sa.cast(p(name, sa.Text), postgresql.JSONB)).table_valued("value")
        return sa.select(sa.cast(each.c.value, type_))

    def pairs(self, name: str) -> Any:
        """Select two integers from each item of a JSON list of pairs."""
        if self.dialect == "sqlite":
            item = sa.func.json_each(p(name)).table_valued("value").c.value
            return sa.select(*[sa.func.json_extract(item, lit(f"$[{i}]")) for i in (0, 1)])
        each = sa.func.jsonb_array_elements(sa.cast(p(name, sa.Text), postgresql.JSONB)).table_valued("value")
        return sa.select(*(sa.cast(each.c.value.op("->>")(lit(i)), sa.BigInteger) for i in (0, 1)))

    def first(self, statement: sa.Select[Any]) -> sa.Select[Any]:
        """Return the first `:limit` rows; SQLite's compiler would otherwise bind an offset of its own."""
        limited = statement.limit(p("limit", sa.Integer))
        return limited.offset(lit(0)) if self.dialect == "sqlite" else limited

    def insert(self, table: sa.Table, **special: Any) -> Any:
        """Insert a row of parameters named as columns, save for the `special` ones."""
        make: Any = sqlite.insert if self.dialect == "sqlite" else postgresql.insert
        values = {c.name: special.get(c.name, p(c.name, c.type)) for c in table.c if special.get(c.name) is not SKIP}
        return make(table).values(values)


def queries(dialect: Dialect) -> dict[str, Any]:
    """Every statement the store runs, by name."""
    s = Spelling(dialect)
    return {**run_queries(s), **claim_queries(s), **job_queries(s), **value_queries(s), **worker_queries(s)}


def run_queries(s: Spelling) -> dict[str, Any]:
    """Runs: insert, look up, move through their statuses."""
    run = t.run
    newest = sa.select(sa.func.max(run.c.created_at) + lit(1)).scalar_subquery()
    ended = run.c.status.in_([lit(x) for x in ("succeeded", "partial", "failed", "cancelled")])
    return {
        "run_insert": s.insert(
            run,
            session=lit(1),
            outputs=sa.null(),
            error=lit(""),
            # Distinct times make "newest first" a total order.
            created_at=sa.case((newest > s.now, newest), else_=s.now),
            started_at=sa.case((p("status", sa.Text) == lit("running"), s.now), else_=sa.null()),
            finished_at=sa.null(),
        ),
        "run_get": sa.select(*RUN).where(run.c.id == p("id")),
        "run_prefix": s.first(
            sa.select(run.c.id)
            .where(sa.func.substr(run.c.id, lit(1), sa.func.length(p("prefix", sa.Text))) == p("prefix", sa.Text))
            .order_by(run.c.created_at.desc())
        ),
        "run_list": s.first(
            sa.select(*RUN)
            .where(sa.or_(p("status", sa.Text).is_(None), run.c.status == p("status", sa.Text)))
            .where(sa.or_(p("workflow", sa.Text).is_(None), run.c.workflow == p("workflow", sa.Text)))
            .order_by(run.c.created_at.desc())
        ),
        "run_drive": sa.update(run)
        .where(run.c.id == p("run_id"), run.c.session == p("in_session"), sa.not_(ended))
        .values(status=lit("running"), supervisor=p("worker"), started_at=sa.func.coalesce(run.c.started_at, s.now)),
        "run_finish": sa.update(run)
        .where(run.c.id == p("run_id"), sa.not_(ended))
        .where(sa.or_(p("in_session", sa.Integer).is_(None), run.c.session == p("in_session", sa.Integer)))
        .values(status=p("new_status"), outputs=p("new_outputs"), error=p("new_error"), finished_at=s.now),
        "run_resume": sa.update(run)
        .where(run.c.id == p("run_id"))
        .values(
            status=lit("running"),
            session=run.c.session + lit(1),
            supervisor=p("worker"),
            error=lit(""),
            outputs=sa.null(),
            finished_at=sa.null(),
        )
        .returning(run.c.session),
    }


def claim_queries(s: Spelling) -> dict[str, Any]:
    """The protocol: who may hold a job, for how long, and how it is taken back."""
    job = t.job
    ready, running = job.c.state == lit("ready"), job.c.state == lit("running")
    held = sa.select(*HELD)
    fenced = sa.and_(job.c.id == p("job_id"), job.c.fence == p("fence"), running)
    named = sa.tuple_(job.c.id, job.c.fence).in_(s.pairs("pairs"))

    def lease(deadline: Any) -> Any:
        # A lease never outlives the deadline, so one index finds both kinds of lateness.
        until = s.now + p("lease_ms", sa.BigInteger)
        return sa.case((deadline < until, deadline), else_=until)

    def claim(*where: Any) -> Any:
        first = s.first(
            sa.select(job.c.id)
            .where(ready, job.c.queue == p("queue"), job.c.run_at <= s.now, *where)
            .order_by(job.c.rank, job.c.run_at, job.c.id)
        )
        chosen = (
            first.with_for_update(skip_locked=True)
            # A nested-loop plan may otherwise evaluate the limit more than once.
            .cte("chosen")
            .prefix_with("MATERIALIZED", dialect="postgresql")
        )
        return (
            sa.update(job)
            .where(job.c.id.in_(sa.select(chosen.c.id)), ready)
            .values(
                state=lit("running"),
                attempt=job.c.attempt + lit(1),
                fence=job.c.fence + lit(1),
                worker=p("by_worker", sa.Text),
                claimed_at=s.now,
                deadline_at=s.now + job.c.timeout_ms,
                lease_until=lease(s.now + job.c.timeout_ms),
            )
            .returning(*JOB)
        )

    mine = sa.or_(p("run_id", sa.Text).is_(None), job.c.run_id == p("run_id", sa.Text))
    return {
        "claim": claim(),
        "claim_run": claim(job.c.run_id == p("of_run", sa.Text)),
        "held_expired": s.first(
            held.where(running, job.c.lease_until <= s.now).order_by(job.c.lease_until)
        ).with_for_update(skip_locked=True),
        "held_one": held.where(fenced).with_for_update(),
        "held_pairs": held.where(job.c.id.in_(s.listed("ids")), named, running).with_for_update(),
        "held_worker": held.where(running, job.c.worker == p("of_worker")).with_for_update(),
        "held_run": held.where(running, job.c.run_id == p("of_run")).with_for_update(),
        "renew": sa.update(job)
        .where(job.c.id.in_(s.listed("ids")), named, running)
        .where(sa.or_(job.c.deadline_at.is_(None), job.c.deadline_at > s.now))
        .values(lease_until=lease(job.c.deadline_at))
        .returning(job.c.id),
        "settle": sa.update(job)
        .where(fenced)
        .values(
            state=p("new_state"),
            attempt=p("new_attempt"),
            run_at=s.now + p("delay_ms", sa.BigInteger),
            error=p("new_error"),
            lease_until=sa.null(),
            deadline_at=sa.null(),
        ),
        "finish": sa.update(job)
        .where(fenced)
        .values(
            state=lit("done"),
            result_key=p("new_result_key"),
            reused=p("new_reused", sa.Boolean),
            session=p("new_session"),
            error=lit(""),
            lease_until=sa.null(),
            deadline_at=sa.null(),
        )
        .returning(*HELD),
        "finish_unclaimed": sa.update(job)
        .where(job.c.id == p("job_id"), job.c.state.in_([lit("ready"), lit("blocked")]))
        .values(
            state=lit("done"),
            result_key=p("new_result_key"),
            reused=p("new_reused", sa.Boolean),
            session=p("new_session"),
            error=lit(""),
        )
        .returning(job.c.id),
        "attempt_insert": s.insert(t.attempt, finished_at=s.now),
        "now": sa.select(s.now),
        "due_ready": sa.select(lit(1))
        .where(ready, job.c.queue == p("queue"), job.c.run_at <= s.now, mine)
        .limit(lit(1))
        .offset(lit(0)),
        "due_later": sa.select(sa.func.min(job.c.run_at) - s.now).where(ready, job.c.queue == p("queue"), mine),
        "due_lease": sa.select(sa.func.min(job.c.lease_until) - s.now).where(running),
    }


def job_queries(s: Spelling) -> dict[str, Any]:
    """Jobs and the edges between them."""
    job, edge = t.job, t.edge
    before_done = sa.exists().where(job.c.id == edge.c.before_id, job.c.state == lit("done"))
    freed = sa.and_(job.c.state == lit("blocked"), job.c.deps_left <= p("n", sa.Integer))
    return {
        "job_insert": s.insert(
            job,
            id=SKIP,
            state=lit("ready"),
            run_at=s.now + p("delay_ms", sa.BigInteger),
            attempt=lit(0),
            fence=lit(0),
            deps_left=lit(0),
            reused=s.false,
            error=lit(""),
            **dict.fromkeys(("claimed_at", "lease_until", "deadline_at", "worker", "result_key", "session"), sa.null()),
        ).returning(job.c.id),
        "edge_insert": s.insert(edge),
        # The lock makes a predecessor that finishes meanwhile wait, so that it sees the edge.
        "before_states": sa.select(job.c.id, job.c.state)
        .where(job.c.id.in_(s.listed("ids")))
        .order_by(job.c.id)
        .with_for_update(read=True),
        "job_block": sa.update(job)
        .where(job.c.id == p("job_id"), job.c.state.in_([lit("ready"), lit("blocked")]))
        .values(deps_left=job.c.deps_left + p("n", sa.Integer), state=lit("blocked")),
        "edge_release": sa.update(edge)
        .where(edge.c.before_id.in_(s.listed("ids")), sa.not_(edge.c.released), before_done)
        .values(released=s.true)
        .returning(edge.c.after_id),
        "job_release": sa.update(job)
        .where(job.c.id == p("job_id"))
        .values(
            deps_left=job.c.deps_left - p("n", sa.Integer),
            state=sa.case((freed, lit("ready")), else_=job.c.state),
        )
        .returning(*JOB),
        "jobs_cancel": sa.update(job)
        .where(job.c.run_id == p("of_run"))
        .where(job.c.state.in_([lit(x) for x in ("blocked", "ready", "running")]))
        .values(state=lit("cancelled"), lease_until=sa.null(), deadline_at=sa.null()),
        "jobs_lost": sa.update(job)
        .where(job.c.run_id == p("of_run"), job.c.state == lit("done"), job.c.result_key.is_not(None))
        .where(sa.not_(sa.exists().where(t.result.c.key == job.c.result_key)))
        .values(state=lit("ready"), result_key=sa.null(), session=sa.null(), reused=s.false)
        .returning(job.c.id),
        "edge_restore": sa.update(edge)
        .where(edge.c.before_id.in_(s.listed("ids")), edge.c.released)
        .values(released=s.false)
        .returning(edge.c.after_id),
        "job_restore": sa.update(job)
        .where(job.c.id == p("job_id"))
        .values(deps_left=job.c.deps_left + p("n", sa.Integer)),
        "jobs_resume": sa.update(job)
        .where(job.c.run_id == p("of_run"))
        .where(job.c.state.in_([lit(x) for x in ("failed", "cancelled", "ready")]))
        .values(
            state=sa.case((job.c.deps_left > lit(0), lit("blocked")), else_=lit("ready")),
            attempt=lit(0),
            run_at=s.now,
            error=lit(""),
        ),
        "jobs": sa.select(*JOB).where(job.c.run_id == p("of_run")).order_by(job.c.id),
        "jobs_stages": sa.select(*JOB)
        .where(job.c.run_id == p("of_run"), job.c.stage.in_(s.listed("stages", sa.Text)))
        .order_by(job.c.id),
        "edges": sa.select(edge.c.before_id, edge.c.after_id)
        .join_from(edge, job, job.c.id == edge.c.after_id)
        .where(job.c.run_id == p("of_run"))
        .order_by(edge.c.after_id, edge.c.before_id),
        "counts": sa.select(job.c.state, sa.func.count()).where(job.c.run_id == p("of_run")).group_by(job.c.state),
        "attempts": sa.select(*ATTEMPT)
        .join_from(t.attempt, job, job.c.id == t.attempt.c.job_id)
        .where(job.c.run_id == p("of_run"))
        .order_by(t.attempt.c.job_id, t.attempt.c.fence),
    }


def value_queries(s: Spelling) -> dict[str, Any]:
    """What is kept by content: results, memos, file digests."""
    result, memo, file = t.result, t.memo, t.file_digest
    keys = s.listed("keys", sa.Text)
    reusable = sa.or_(
        p("for_run", sa.Text).is_(None), result.c.scope_run.is_(None), result.c.scope_run == p("for_run", sa.Text)
    )
    put_file = s.insert(file)
    return {
        "result_insert": s.insert(result, created_at=s.now).on_conflict_do_nothing(),
        "result_scope": sa.select(result.c.scope_run).where(result.c.key == p("key")),
        "results": sa.select(result.c.key, result.c.body).where(result.c.key.in_(keys), reusable),
        "results_forget": sa.delete(result).where(result.c.key.in_(keys)),
        "memo_insert": s.insert(memo, created_at=s.now).on_conflict_do_nothing(),
        "memos": sa.select(memo.c.key, memo.c.value).where(memo.c.key.in_(keys)),
        "file_insert": put_file.on_conflict_do_update(
            index_elements=[file.c.path],
            set_={name: put_file.excluded[name] for name in ("size", "mtime_ns", "inode", "digest")},
        ),
        "files": sa.select(*FILE).where(file.c.path.in_(keys)),
    }


def worker_queries(s: Spelling) -> dict[str, Any]:
    """The processes that take part."""
    worker = t.worker
    return {
        "worker_insert": s.insert(worker, started_at=s.now, heartbeat_at=s.now, stopped_at=sa.null()),
        "worker_beat": sa.update(worker)
        .where(worker.c.id == p("of_worker"), worker.c.stopped_at.is_(None))
        .values(heartbeat_at=s.now),
        "worker_stop": sa.update(worker)
        .where(worker.c.id == p("of_worker"), worker.c.stopped_at.is_(None))
        .values(stopped_at=s.now),
        "workers_live": sa.select(*WORKER)
        .where(worker.c.stopped_at.is_(None))
        .order_by(worker.c.started_at, worker.c.id),
    }
