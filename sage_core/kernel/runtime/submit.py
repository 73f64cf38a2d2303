"""A run as it enters the store without anybody to drive it: the workers of its queue do, and finish it."""

from __future__ import annotations

import msgspec

from sage_core.common.config import Config
from sage_core.common.host import Host
from sage_core.common.paths import Paths
from sage_core.common.policies import ordering_named
from sage_core.common.records import Caller, Record
from sage_core.kernel.dataflow.graph import Graph, encode
from sage_core.kernel.runtime.demands import refuse_unmet
from sage_core.kernel.runtime.inputs import Inputs
from sage_core.kernel.runtime.job_manager import JobManager
from sage_core.kernel.runtime.prepared import Prepared
from sage_core.kernel.runtime.results import Tables
from sage_core.kernel.runtime.values import Codec, digest
from sage_core.kernel.scheduler.node import node_name
from sage_core.kernel.scheduler.placement import PRIVATE as PRIVATE
from sage_core.kernel.scheduler.placement import Placement, registered
from sage_core.platform.records import NewRun, OnConflict
from sage_core.platform.shared import Pieces, artifacts_of
from sage_core.platform.transaction import Transaction


class Order(Record):
    """How a run is to be queued."""

    queue: str = "default"
    #: Larger goes first, as far as the ordering of jobs heeds it.
    priority: int = 0
    #: Milliseconds before its first jobs may be claimed.
    delay_ms: int = 0
    unique_key: str | None = None
    idempotency_key: str | None = None
    on_conflict: OnConflict = "error"
    deployment: str | None = None
    forked_from: str | None = None


class Place(Record):
    """Where a run was started: its current folder, and the one its sage.toml is looked for from."""

    cwd: str
    project: str
    #: The workflow's file and the profile applied to it; empty where it came from no file.
    workflow: str = ""
    profile: str | None = None
    #: For whom: what its steps ask of models is of this tenant, class and priority.
    caller: Caller = Caller()


def caller_of(run: NewRun) -> Caller:
    """For whom a run was started."""
    return msgspec.msgpack.decode(run.options, type=Place).caller if run.options else Caller()


def new_run(graph: Graph, prepared: Prepared, run_id: str, *, place: Place, order: Order) -> NewRun:
    """The row of a run over a prepared graph."""
    return NewRun(
        id=run_id,
        workflow=graph.name,
        graph=encode(graph),
        plan=prepared.encode(),
        params=msgspec.msgpack.encode(prepared.params),
        options=msgspec.msgpack.encode(place),
        graph_hash=digest(encode(graph)),
        pins=msgspec.msgpack.encode(prepared.pins),
        queue=order.queue,
        priority=order.priority,
        unique_key=order.unique_key,
        idempotency_key=order.idempotency_key,
        deployment=order.deployment,
        forked_from=order.forked_from,
    )


def insert(
    tx: Transaction,
    graph: Graph,
    prepared: Prepared,
    run_id: str,
    *,
    host: Host,
    paths: Paths,
    config: Config,
    order: Order,
    place: Place,
) -> str:
    """Queue a run; returns its id, or the id of the run that has its key and is kept instead of it."""
    run = new_run(graph, prepared, run_id, place=place, order=order)
    manager, _ = manager_of(run, prepared, tx, host=host, paths=paths, config=config)
    refuse_unmet(prepared, lambda: registered(tx, config))
    return manager.submit(tx, run, delay_ms=order.delay_ms, on_conflict=order.on_conflict) or run_id


def manager_of(
    run: NewRun, prepared: Prepared, pieces: Pieces, *, host: Host, paths: Paths, config: Config, session: int = 1
) -> tuple[JobManager, Inputs]:
    """What moves the jobs of a run from a process that runs none of them, and what reads their inputs."""
    codec = Codec(paths.artifacts)
    tables = Tables(codec, artifacts_of(paths.artifacts, pieces))
    inputs = Inputs(run.id, prepared, tables, codec)
    manager = JobManager(
        run.id,
        inputs,
        tables,
        ordering_named(config.scheduler.jobs, host.schedulers),
        session=session,
        queue=run.queue,
        priority=run.priority,
        placement=Placement(config, host.selectors),
        node=node_name(config),
        limits=config.limits,
        deadline=config.workers.deadline,
    )
    return manager, inputs
