"""Starts worker processes for queued work where none serve its queue: nothing runs while nothing is queued."""

from __future__ import annotations

import os
import subprocess
import sys
import uuid
from pathlib import Path

from sage_core.common.config import QueueConfig
from sage_core.common.telemetry import log
from sage_core.kernel.runtime.launch import Project
from sage_core.kernel.runtime.submit import PRIVATE
from sage_core.kernel.scheduler.node import node_name
from sage_core.platform.processes import is_alive
from sage_core.platform.store import JobStore

#: Milliseconds a supervisor that was just started may take until it renews its right by itself.
START_MS = 20_000


def ensure_workers(project: Project, queue: str) -> bool:
    """See that somebody on this node serves a queue; returns whether a supervisor was started for it.

    Call it after the work is committed: whoever serves the queue looks once more after giving up its right to.
    """
    supervisor = uuid.uuid4().hex
    with project.open_store() as store:
        if not _may_start(store, node_name(project.config), queue, supervisor):
            return False
    _start(project, queue, supervisor)
    log("workers_started", queue=queue, supervisor=supervisor)
    return True


def wake(project: Project) -> list[str]:
    """See that every queue with work that is due is served; returns those that a supervisor was started for."""
    with project.open_store() as store:
        now, queues = store.now(), store.queues()
        due = {queue.name for queue in queues if queue.oldest_run_at is not None and queue.oldest_run_at <= now}
        # A run of which everything could be reused has no job that is due, and still is to be ended.
        known = {*project.config.queues, *(queue.name for queue in queues), *(row.queue for row in store.deployments())}
        due |= {name for name in known - due if store.runs_over(name, limit=1)}
        due -= {queue.name for queue in queues if queue.paused}
    return [name for name in sorted(due) if not name.startswith(PRIVATE) and ensure_workers(project, name)]


def _may_start(store: JobStore, node: str, queue: str, supervisor: str) -> bool:
    for dead in (False, True):
        if dead and not bury_supervisors(store):
            return False
        with store.transaction() as tx:
            if tx.take_spawn(node=node, queue=queue, holder=supervisor, lease_ms=START_MS):
                return True
    return False


def bury_supervisors(store: JobStore) -> bool:
    """Take the rights of supervisors of this machine that died without goodbye; returns whether there were any."""
    gone = [worker for worker in store.live_workers() if worker.kind == "supervisor" and is_alive(worker) is False]
    for worker in gone:
        store.release_worker(worker.id, f"process {worker.pid} on {worker.host} is gone")
        with store.transaction() as tx:
            tx.drop_spawn(worker.id)
    return bool(gone)


def _start(project: Project, queue: str, supervisor: str) -> None:
    idle = project.config.queues.get(queue, QueueConfig()).idle
    out = project.paths.logs / "workers.log"
    out.parent.mkdir(parents=True, exist_ok=True)
    command = [
        *(sys.executable, "-m", "sage_core.cli", "worker"),
        *(f"--queue={queue}", f"--until-idle={idle:g}s", f"--as={supervisor}"),
    ]
    # Both name files relative to the caller's folder, and the supervisor works in the project's.
    places = {name: str(Path(os.environ[name]).expanduser().absolute()) for name in _PLACES if os.environ.get(name)}
    with out.open("ab") as lines:
        # The shell ends at once, so the supervisor is nobody's child: it outlives the caller and leaves it no zombie.
        subprocess.run(
            ["/bin/sh", "-c", '"$@" &', "sh", *command],
            cwd=project.folder,
            env={**os.environ, **places},
            stdin=subprocess.DEVNULL,
            stdout=lines,
            stderr=lines,
            start_new_session=True,
            check=True,
        )


_PLACES = ("SAGE_HOME", "SAGE_CONFIG")
