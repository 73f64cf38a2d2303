"""Statements about more than one run: queues and slots, processes, nodes, deployments, schedules, shared files."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa

from sage_core.platform import tables as t
from sage_core.platform.records import DeploymentRow, FireRow, NodeRow, ScheduleRow, WorkerRow
from sage_core.platform.spelling import Spelling, holds, lit, p

NODE = [t.node.c[name] for name in NodeRow.__struct_fields__]
DEPLOYMENT = [t.deployment.c[name] for name in DeploymentRow.__struct_fields__]
SCHEDULE = [t.schedule.c[name] for name in ScheduleRow.__struct_fields__]
WORKER = [t.worker.c[name] for name in WorkerRow.__struct_fields__]
FIRE = [t.fire.c[name] for name in FireRow.__struct_fields__]


def cluster_queries(s: Spelling) -> dict[str, Any]:
    """Every statement of this module, by name."""
    return {**queue_queries(s), **node_queries(s), **schedule_queries(s), **sharing_queries(s), **worker_queries(s)}


def queue_queries(s: Spelling) -> dict[str, Any]:
    """Queues that can be paused, and slots that limit how many jobs of a key run at once."""
    queue, slot, beyond = t.queue, t.slot, t.slot.alias("beyond")
    above = sa.and_(slot.c.key == p("key"), slot.c.n >= p("count", sa.Integer))
    counts = ("ready", "delayed", "held", "running", "blocked")
    depth = sa.table("sage_queue_depth", *map(sa.column, ("queue", *counts, "oldest_run_at")))
    names = sa.union(sa.select(queue.c.name), sa.select(depth.c.queue)).subquery("names")
    switch = s.insert(queue, changed_at=s.now)
    free = (
        sa.select(slot.c.n)
        .where(slot.c.key == p("key"), slot.c.n >= lit(0), sa.not_(holds(slot)))
        .order_by(slot.c.n)
        .limit(lit(1))
        # Whoever runs beyond a lowered count takes the place of one that could be taken.
        .offset(
            sa.select(sa.func.count())
            .where(beyond.c.key == p("key"), beyond.c.n < lit(0), holds(beyond))
            .scalar_subquery()
        )
    )
    return {
        "queue_switch": switch.on_conflict_do_update(
            index_elements=[queue.c.name], set_={"paused": switch.excluded.paused, "changed_at": s.now}
        ),
        "queues": sa.select(
            names.c.name,
            sa.func.coalesce(queue.c.paused, s.false),
            *(sa.func.coalesce(depth.c[state], lit(0)) for state in counts),
            depth.c.oldest_run_at,
        )
        .select_from(
            names.outerjoin(queue, queue.c.name == names.c.name).outerjoin(depth, depth.c.queue == names.c.name)
        )
        .order_by(names.c.name),
        "slot_insert": s.insert(slot, job_id=sa.null(), fence=sa.null()).on_conflict_do_nothing(),
        "slots_above": sa.select(slot.c.n).where(above),
        "slots_drop": sa.delete(slot).where(
            sa.or_(above, sa.and_(slot.c.key == p("key"), slot.c.n < lit(0))), sa.not_(holds(slot))
        ),
        # Below nought a slot is held until its job ends, and then nobody's any more.
        "slots_leave": sa.update(slot).where(above).values(n=-slot.c.job_id),
        # Taken first, so that the next statement sees every claim of a slot of this key that was committed.
        "slot_lock": sa.select(slot.c.n).where(slot.c.key == p("key"), slot.c.n == lit(0)).with_for_update(),
        "slot_take": sa.update(slot)
        .where(slot.c.key == p("key"), slot.c.n.in_(free))
        .values(job_id=p("job_id"), fence=p("fence")),
    }


def node_queries(s: Spelling) -> dict[str, Any]:
    """Nodes that supervisors speak for, and who may start workers where."""
    node, spawn, job = t.node, t.spawn, t.job
    clock = p("node_ms", sa.BigInteger) - s.now
    announce = s.insert(node, started_at=s.now, heartbeat_at=s.now, stopped_at=sa.null(), clock_ms=clock)
    lease = s.insert(spawn, until=s.now + p("lease_ms", sa.BigInteger))
    mine = sa.and_(node.c.name == p("name"), node.c.supervisor == p("supervisor"))
    return {
        # A name is taken over when its holder has said goodbye or has been silent; else nothing is touched.
        "node_announce": announce.on_conflict_do_update(
            index_elements=[node.c.name],
            set_={c.name: announce.excluded[c.name] for c in node.c if c.name != "name"},
            where=sa.or_(
                node.c.supervisor == announce.excluded.supervisor,
                node.c.stopped_at.is_not(None),
                node.c.heartbeat_at < s.now - p("silence_ms", sa.BigInteger),
            ),
        ),
        "node_beat": sa.update(node)
        .where(mine, node.c.stopped_at.is_(None))
        .values(heartbeat_at=s.now, body=p("body"), clock_ms=clock),
        "node_stop": sa.update(node).where(mine).values(stopped_at=s.now),
        "nodes": sa.select(*NODE).order_by(node.c.name),
        # Taken by name, because a machine that was never announced runs jobs too; SQLite's transaction is lock enough.
        "node_lock": sa.select(
            sa.func.pg_advisory_xact_lock(sa.func.hashtext(p("name", sa.Text))) if s.dialect == "postgresql" else lit(1)
        ),
        "nodes_serving": sa.select(*NODE)
        .join_from(node, spawn, spawn.c.node == node.c.name)
        .where(spawn.c.queue == p("queue"), spawn.c["until"] > s.now, node.c.stopped_at.is_(None))
        .order_by(node.c.name),
        "nodes_running": sa.select(job.c.node, job.c.needs, sa.func.count())
        .where(job.c.state == lit("running"), job.c.node.is_not(None))
        .group_by(job.c.node, job.c.needs),
        "job_place": sa.update(job)
        .where(job.c.id == p("job_id"), job.c.state == lit("ready"))
        .values(
            node=p("node"),
            node_until=sa.case((job.c.run_at > s.now, job.c.run_at), else_=s.now) + p("patience_ms", sa.BigInteger),
        ),
        "spawn_take": lease.on_conflict_do_update(
            index_elements=[spawn.c.node, spawn.c.queue],
            set_={"holder": lease.excluded.holder, "until": lease.excluded["until"]},
            where=sa.or_(spawn.c["until"] <= s.now, spawn.c.holder == lease.excluded.holder),
        ),
        "spawn_drop": sa.delete(spawn).where(spawn.c.holder == p("holder")),
    }


def schedule_queries(s: Spelling) -> dict[str, Any]:
    """Deployments, their schedules, and the fire times that were dealt with."""
    deployment, schedule, fire = t.deployment, t.schedule, t.fire
    deploy = s.insert(deployment, version=lit(1), created_at=s.now)
    plan = s.insert(schedule, created_at=s.now)
    of_run = sa.select(fire.c.schedule).where(fire.c.run_id == t.run.c.id).scalar_subquery()
    kept = sa.case((schedule.c.spec == plan.excluded.spec, schedule.c.next_at), else_=plan.excluded.next_at)
    return {
        "deploy": deploy.on_conflict_do_update(
            index_elements=[deployment.c.name],
            set_={
                **{c.name: deploy.excluded[c.name] for c in deployment.c if c.name not in ("name", "version")},
                "version": deployment.c.version + lit(1),
            },
        ),
        "deployments": sa.select(*DEPLOYMENT).order_by(deployment.c.name),
        "deployment": sa.select(*DEPLOYMENT).where(deployment.c.name == p("name")),
        "deployment_drop": sa.delete(deployment).where(deployment.c.name == p("name")),
        # A schedule that is deployed again keeps its switch, and its next time unless its declaration changed.
        "schedule_put": plan.on_conflict_do_update(
            index_elements=[schedule.c.id], set_={"spec": plan.excluded.spec, "next_at": kept}
        ),
        "schedules": sa.select(*SCHEDULE).order_by(schedule.c.id),
        "schedules_due": s.first(
            sa.select(*SCHEDULE)
            .where(schedule.c.next_at <= s.now, sa.not_(schedule.c.paused))
            .order_by(schedule.c.next_at, schedule.c.id)
        ).with_for_update(skip_locked=True),
        "schedule_next": sa.select(sa.func.min(schedule.c.next_at)).where(sa.not_(schedule.c.paused)),
        "schedule_move": sa.update(schedule)
        .where(schedule.c.id == p("of_schedule"))
        .values(next_at=p("next_at", sa.BigInteger)),
        "schedule_switch": sa.update(schedule)
        .where(schedule.c.id == p("of_schedule"))
        .values(paused=p("paused", sa.Boolean), next_at=p("next_at", sa.BigInteger)),
        "schedules_drop": sa.delete(schedule).where(
            schedule.c.deployment == p("of_deployment"), schedule.c.id.not_in(s.listed("keep", sa.Text))
        ),
        # From the few runs that are live, not from the many fire times there were.
        "schedule_runs": sa.select(t.run.c.id)
        .where(t.run.c.status.in_([lit("queued"), lit("running")]), of_run == p("of_schedule"))
        .order_by(t.run.c.queue, t.run.c.created_at),
        "fire_insert": s.insert(fire, fired_at=s.now).on_conflict_do_nothing(),
        "fires": s.first(
            sa.select(*FIRE)
            .where(sa.or_(p("of_schedule", sa.Text).is_(None), fire.c.schedule == p("of_schedule", sa.Text)))
            .order_by(fire.c.fire_at.desc())
        ),
    }


def sharing_queries(s: Spelling) -> dict[str, Any]:
    """Keys being computed, and files kept in the database."""
    computing, blob = t.computing, t.blob
    start = s.insert(computing)
    mine = sa.and_(computing.c.job_id == p("job_id"), computing.c.fence == p("fence"))
    return {
        "computing_take": start.on_conflict_do_update(
            index_elements=[computing.c.key],
            set_={"job_id": start.excluded.job_id, "fence": start.excluded.fence},
            where=sa.or_(
                sa.not_(holds(computing)),
                sa.and_(computing.c.job_id == start.excluded.job_id, computing.c.fence == start.excluded.fence),
            ),
        ),
        "computing_drop": sa.delete(computing).where(computing.c.key == p("key"), mine),
        "blob_insert": s.insert(blob, created_at=s.now).on_conflict_do_nothing(),
        "blob_piece": sa.select(blob.c.body).where(blob.c.digest == p("digest"), blob.c.n == p("n", sa.Integer)),
        "blob_known": sa.select(lit(1)).where(blob.c.digest == p("digest"), blob.c.n == lit(0)),
        "blobs": sa.select(blob.c.digest).distinct(),
        # Whoever shares a file once more keeps it from those that were about to drop it: both lock its rows.
        "blob_touch": sa.update(blob).where(blob.c.digest == p("digest")).values(created_at=s.now),
        "blobs_drop": sa.delete(blob).where(
            blob.c.digest.in_(s.listed("keys", sa.Text)), blob.c.created_at <= s.now - p("keep_ms", sa.BigInteger)
        ),
    }


def worker_queries(s: Spelling) -> dict[str, Any]:
    """The processes that take part."""
    worker = t.worker
    return {
        "worker_insert": s.insert(worker, started_at=s.now, heartbeat_at=s.now, stopped_at=sa.null(), phases=lit("")),
        "worker_beat": sa.update(worker)
        .where(worker.c.id == p("of_worker"), worker.c.stopped_at.is_(None))
        .values(heartbeat_at=s.now),
        "workers_beat": sa.update(worker)
        .where(worker.c.id.in_(s.listed("workers", sa.Text)), worker.c.stopped_at.is_(None))
        .values(heartbeat_at=s.now),
        "worker_phases": sa.update(worker).where(worker.c.id == p("of_worker")).values(phases=p("phases")),
        "tried": sa.select(sa.func.count()).where(t.attempt.c.worker.in_(s.listed("workers", sa.Text))),
        "worker_stop": sa.update(worker)
        .where(worker.c.id == p("of_worker"), worker.c.stopped_at.is_(None))
        .values(stopped_at=s.now),
        "workers_live": sa.select(*WORKER)
        .where(worker.c.stopped_at.is_(None))
        .order_by(worker.c.started_at, worker.c.id),
    }
