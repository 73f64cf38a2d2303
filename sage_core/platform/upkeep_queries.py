"""Statements about the past: jobs found by what became of them, work opened again, old rows removed."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa

from sage_core.platform import tables as t
from sage_core.platform.records import AttemptRow, JobRow
from sage_core.platform.spelling import Spelling, lit, p

JOB = [t.job.c[name] for name in JobRow.__struct_fields__]
ATTEMPT = [t.attempt.c[name] for name in AttemptRow.__struct_fields__]


def upkeep_queries(s: Spelling) -> dict[str, Any]:
    """Every statement of this module, by name."""
    return {**found_queries(s), **prune_queries(s)}


def found_queries(s: Spelling) -> dict[str, Any]:
    """Jobs by what became of them, and done ones made ready once more."""
    job, edge = t.job, t.edge

    def is_or_any(column: Any, name: str) -> Any:
        return sa.or_(p(name, sa.Text).is_(None), column == p(name, sa.Text))

    return {
        "jobs_found": s.first(
            sa.select(*JOB)
            .where(is_or_any(job.c.state, "in_state"), is_or_any(job.c.run_id, "of_run"))
            .where(is_or_any(job.c.queue, "in_queue"))
            .order_by(job.c.id.desc())
        ),
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
        "job_get": sa.select(*JOB).where(job.c.id == p("job_id")),
        "attempts_of": sa.select(*ATTEMPT).where(t.attempt.c.job_id == p("job_id")).order_by(t.attempt.c.fence),
        "run_pin": sa.update(t.run)
        .where(t.run.c.id == p("of_run"))
        .values(pins=p("new_pins", sa.LargeBinary), plan=p("new_plan", sa.LargeBinary)),
        # Both halves of the index's condition, as it has them.
        "runs_unheard": s.first(
            sa.select(t.run.c.id)
            .where(t.run.c.finished_at.isnot(None), t.run.c.announced < t.run.c.session)
            .where(t.run.c.finished_at <= s.now - p("for_ms", sa.BigInteger))
            .order_by(t.run.c.finished_at)
        ),
        "run_announced": sa.update(t.run)
        .where(t.run.c.id == p("run_id"), t.run.c.announced < p("in_session", sa.Integer))
        .values(announced=p("in_session", sa.Integer)),
        # Whoever ran it finds its fence gone; the statements that end an attempt then end the job.
        "job_seize": sa.update(job)
        .where(job.c.id == p("job_id"), job.c.state.in_([lit("ready"), lit("running")]))
        .values(
            state=lit("running"),
            fence=job.c.fence + lit(1),
            claimed_at=sa.case((job.c.state == lit("running"), job.c.claimed_at), else_=s.now),
            lease_until=s.now,
            # The history names it.
            worker=sa.func.coalesce(job.c.worker, lit("")),
        )
        .returning(*JOB),
        # The result stays named: whoever runs the job again keeps what was right in it.
        "jobs_reopen": sa.update(job)
        .where(job.c.id.in_(s.listed("ids")), job.c.state == lit("done"))
        .values(state=lit("ready"), attempt=lit(0), session=sa.null(), reused=s.false, run_at=s.now),
    }


def prune_queries(s: Spelling) -> dict[str, Any]:
    """What is old and what nothing refers to."""
    run, job, result = t.run, t.job, t.result
    before = s.now - p("keep_ms", sa.BigInteger)
    ended = run.c.status.in_([lit(x) for x in ("succeeded", "partial", "failed", "cancelled")])
    used = sa.exists().where(job.c.result_key == result.c.key)
    return {
        # Jobs, edges and attempts go with their run.
        "runs_prune": sa.delete(run).where(ended, run.c.finished_at <= before),
        "results_prune": sa.delete(result).where(sa.not_(used), result.c.created_at <= before),
        "memos_prune": sa.delete(t.memo).where(t.memo.c.created_at <= before),
        "fires_prune": sa.delete(t.fire).where(t.fire.c.fired_at <= before),
        "workers_prune": sa.delete(t.worker).where(t.worker.c.stopped_at <= before),
        "results_page": s.first(
            sa.select(result.c.key, result.c.body).where(result.c.key > p("after", sa.Text)).order_by(result.c.key)
        ),
        "blobs_old": sa.select(t.blob.c.digest).distinct().where(t.blob.c.created_at <= before),
    }
