"""The store's statements in SQLAlchemy Core, one dictionary per dialect; `compile` turns them into checked-in text.

Lists travel as one JSON parameter, so each statement has one text however many rows it is asked for, and no list
meets a database's limit on bound variables. The database's clock is the only clock.
"""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa

from sage_core.platform import tables as t
from sage_core.platform.cluster_queries import cluster_queries
from sage_core.platform.database import Dialect
from sage_core.platform.records import AttemptRow, JobRow, StoredRun
from sage_core.platform.spelling import SKIP, Spelling, holds, lit, p
from sage_core.platform.upkeep_queries import upkeep_queries
from sage_core.platform.value_queries import value_queries

# The column order of a statement is the field order of the record it fills.
JOB = [t.job.c[name] for name in JobRow.__struct_fields__]
RUN = [t.run.c[name] for name in StoredRun.__struct_fields__]
ATTEMPT = [t.attempt.c[name] for name in AttemptRow.__struct_fields__]
#: What a worker is told of a job it claimed, and what decides whether it may keep it: `reader.claimed_job`.
CLAIMED = [*JOB[:10], t.job.c.rank, t.job.c.run_at, t.job.c.limit_key]
#: What the end of an attempt is decided from: `attempts.Held`.
HELD = [t.job.c[name] for name in ("id", "fence", "attempt", "max_attempts", "worker", "claimed_at", "deadline_at")]


def queries(dialect: Dialect) -> dict[str, Any]:
    """Every statement the store runs, by name."""
    s = Spelling(dialect)
    made = (run_queries, claim_queries, job_queries, value_queries, cluster_queries, upkeep_queries)
    return {name: statement for make in made for name, statement in make(s).items()}


def run_queries(s: Spelling) -> dict[str, Any]:
    """Runs: insert, look up, move through their statuses."""
    run = t.run
    newest = sa.select(sa.func.max(run.c.created_at) + lit(1)).scalar_subquery()
    ended = run.c.status.in_([lit(x) for x in ("succeeded", "partial", "failed", "cancelled")])

    ready = sa.exists().where(t.job.c.run_id == run.c.id, t.job.c.state == lit("ready"))
    # Few jobs run at a time, and their own index finds them; that of the run would be read past all it has done.
    running = sa.exists().where(t.job.c.run_id + lit("") == run.c.id, t.job.c.state == lit("running"))
    failed = sa.exists().where(t.job.c.run_id == run.c.id, t.job.c.state == lit("failed"))
    # What is blocked waits for one of these.
    left = sa.or_(ready, running)

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
            announced=lit(0),
        ).on_conflict_do_nothing(),
        # The run that a new one's keys belong to: any run for an idempotency key, an unfinished one for a unique key.
        "run_of_keys": sa.select(run.c.id)
        .where(
            sa.or_(
                run.c.idempotency_key == p("idempotency_key", sa.Text),
                sa.and_(run.c.unique_key == p("unique_key", sa.Text), sa.not_(ended)),
            )
        )
        .order_by(run.c.created_at),
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
        "run_pulse": sa.select(run.c.status, run.c.session, run.c.supervisor, failed, left).where(
            run.c.id == p("of_run")
        ),
        "runs_over": s.first(
            sa.select(run.c.id)
            .where(run.c.status.in_([lit("queued"), lit("running")]))
            .where(run.c.queue == p("queue"), run.c.supervisor == lit(""))
            .where(sa.or_(failed, sa.not_(left)))
            .order_by(run.c.created_at)
        ),
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
    # Of a job named by its id.
    runs = s.unindexed(job.c.state) == lit("running")
    held = sa.select(*HELD)
    locked = held.where(running).order_by(job.c.id).with_for_update()
    here, delay = p("on_node", sa.Text), p("delay_ms", sa.BigInteger)
    paused = sa.exists().where(t.queue.c.name == p("queue"), t.queue.c.paused)
    # A job that ran before keeps its node, and has no patience left with it.
    meant = sa.func.coalesce(job.c.node_until, lit(0)) > s.now
    placed = sa.or_(job.c.node.is_(None), job.c.node == here, sa.not_(meant))
    able = sa.or_(job.c.needs == lit(""), job.c.needs.in_(s.listed("fits", sa.Text)))
    waits = t.job.alias("waits")
    # Nothing to take back from others, and no job that asks for a node of its kind: then one statement is a claim.
    late = sa.exists().where(waits.c.state == lit("running"), waits.c.lease_until <= s.now)
    # Twice: the one names the partial index to SQLite, the other is what it can search it by.
    asks = sa.exists().where(waits.c.state == lit("ready"), waits.c.needs != lit(""), waits.c.needs > lit(""))
    free = sa.and_(t.slot.c.n >= lit(0), sa.not_(holds(t.slot)))
    # Limited jobs are claimed together with their slots, by more statements: seldom is one free that a job waits for.
    # Jobs of a node of its kind, likewise.
    limited = sa.exists().where(
        free,
        sa.exists()
        .where(waits.c.state == lit("ready"), waits.c.limit_key == t.slot.c.key)
        .where(waits.c.queue == p("queue"), waits.c.run_at <= s.now)
        .correlate(t.slot),
    )
    anyway = p("anyway", sa.Boolean)
    calm = sa.or_(anyway, sa.not_(sa.or_(late, asks, limited)))
    unlimited = sa.or_(
        job.c.limit_key.is_(None), sa.and_(anyway, sa.exists().where(t.slot.c.key == job.c.limit_key, free))
    )
    fenced = sa.and_(job.c.id == p("job_id"), job.c.fence == p("fence"), runs)
    named = sa.tuple_(job.c.id, job.c.fence).in_(s.pairs("pairs"))

    def lease(deadline: Any) -> Any:
        # A lease never outlives the deadline, so one index finds both kinds of lateness.
        until = s.now + p("lease_ms", sa.BigInteger)
        return sa.case((deadline < until, deadline), else_=until)

    def first(*where: Any) -> Any:
        return s.first(
            sa.select(job.c.id)
            .where(ready, job.c.queue == p("queue"), job.c.run_at <= s.now, *where)
            .where(calm, sa.not_(paused), placed, able, unlimited)
            .order_by(job.c.rank, job.c.run_at, job.c.id)
        )

    def claim(*where: Any) -> Any:
        chosen = (
            first(*where)
            .with_for_update(skip_locked=True)
            # A nested-loop plan may otherwise evaluate the limit more than once.
            .cte("chosen")
            .prefix_with("MATERIALIZED", dialect="postgresql")
        )
        return (
            sa.update(job)
            .where(job.c.id.in_(sa.select(chosen.c.id)), s.unindexed(job.c.state) == lit("ready"))
            .values(
                state=lit("running"),
                attempt=job.c.attempt + lit(1),
                fence=job.c.fence + lit(1),
                worker=p("by_worker", sa.Text),
                node=here,
                claimed_at=s.now,
                deadline_at=s.now + job.c.timeout_ms,
                lease_until=lease(s.now + job.c.timeout_ms),
            )
            .returning(*CLAIMED)
        )

    def renew(*where: Any) -> Any:
        within = sa.or_(job.c.deadline_at.is_(None), job.c.deadline_at > s.now)
        mine = sa.select(job.c.id).where(*where, within).order_by(job.c.id).with_for_update().cte("mine")
        mine = mine.prefix_with("MATERIALIZED", dialect="postgresql")
        return sa.update(job).where(job.c.id.in_(sa.select(mine.c.id))).values(lease_until=lease(job.c.deadline_at))

    mine = sa.or_(p("run_id", sa.Text).is_(None), job.c.run_id == p("run_id", sa.Text))
    return {
        "claim": claim(),
        "claim_run": claim(job.c.run_id == p("of_run", sa.Text)),
        "claimable": sa.select(sa.func.count()).select_from(first().subquery("first")),
        "waits": sa.select(lit(1))
        .where(ready, job.c.queue == p("queue"), job.c.run_at <= s.now + p("within_ms", sa.BigInteger))
        .where(sa.not_(paused), able)
        .limit(lit(1))
        .offset(lit(0)),
        "busy": sa.select(sa.func.count()).where(running, job.c.worker.in_(s.listed("workers", sa.Text))),
        "queue_running": sa.select(lit(1)).where(running, job.c.queue == p("queue")).limit(lit(1)).offset(lit(0)),
        "holds": sa.select(lit(1))
        .select_from(job)
        .where(fenced, sa.or_(job.c.deadline_at.is_(None), job.c.deadline_at > s.now)),
        "held_expired": s.first(
            held.where(running, job.c.lease_until <= s.now).order_by(job.c.lease_until)
        ).with_for_update(skip_locked=True),
        "held_one": held.where(fenced).with_for_update(),
        # In one order, as everything that locks several jobs: so none of them waits for the other in turn.
        "held_pairs": held.where(job.c.id.in_(s.listed("ids")), named, runs).order_by(job.c.id).with_for_update(),
        "held_worker": locked.where(job.c.worker == p("of_worker")),
        # What runs is locked before what waits for it, as a completion does.
        "held_left": sa.select(*HELD, job.c.state)
        .where(job.c.run_id == p("of_run"), job.c.state.in_([lit(x) for x in ("blocked", "ready", "running")]))
        .order_by(job.c.state != lit("running"), job.c.id)
        .with_for_update(),
        "held_run": locked.where(job.c.run_id == p("of_run")),
        "renew": renew(job.c.id.in_(s.listed("ids")), named, runs).returning(job.c.id),
        # A worker's id is of one process, and a job's worker is whoever claimed it last: together they are a fence.
        "renew_workers": renew(running, job.c.worker.in_(s.listed("workers", sa.Text))).returning(
            job.c.id, job.c.fence
        ),
        # A claim that found no free slot is as if it had not been, but for the fence.
        "unclaim": sa.update(job)
        .where(fenced)
        .values(state=lit("ready"), attempt=job.c.attempt - lit(1), lease_until=sa.null(), deadline_at=sa.null()),
        "needs_waiting": sa.select(job.c.needs).distinct().where(ready, job.c.needs != lit("")),
        "needs_running": sa.select(job.c.needs, sa.func.count())
        .where(running, job.c.needs != lit(""), job.c.node == p("name", sa.Text))
        .group_by(job.c.needs),
        "settle": sa.update(job)
        .where(fenced)
        .values(
            state=p("new_state"),
            attempt=p("new_attempt"),
            # One that may be claimed at once keeps its place among its equals: being lost must not send it to the end.
            run_at=sa.case((delay > lit(0), s.now + delay), else_=job.c.run_at),
            error=p("new_error"),
            lease_until=sa.null(),
            deadline_at=sa.null(),
            node=sa.null(),
            node_until=sa.null(),
        ),
        "finish_unclaimed": sa.update(job)
        .where(job.c.id == p("job_id"), job.c.state.in_([lit("ready"), lit("blocked")]))
        .values(
            state=lit("done"),
            result_key=p("new_result_key"),
            reused=p("new_reused", sa.Boolean),
            session=p("new_session"),
            failures=p("failures", sa.Integer),
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
            failures=lit(0),
            node_until=s.now + p("delay_ms", sa.BigInteger) + p("patience_ms", sa.BigInteger),
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
        .where(job.c.id.in_(s.listed("ids")))
        .values(state=lit("cancelled"), lease_until=sa.null(), deadline_at=sa.null()),
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
