"""Queued runs as a server needs them: started for a caller, looked at, waited for and cancelled, off its event loop."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import msgspec

from sage_core.common.errors import UsageError
from sage_core.common.host import Host
from sage_core.common.records import Caller, Record
from sage_core.kernel.dataflow.check import check_tree
from sage_core.kernel.dataflow.graph import Graph, decode
from sage_core.kernel.runtime import deployments, launch
from sage_core.kernel.runtime.autoscale import ensure_workers, wake
from sage_core.kernel.runtime.finish import announce
from sage_core.kernel.runtime.follow import follow
from sage_core.kernel.runtime.inspect import RunView, inspect_run
from sage_core.kernel.runtime.launch import Project
from sage_core.kernel.runtime.report import Report
from sage_core.kernel.runtime.submit import PRIVATE, Order, Place, caller_of, insert
from sage_core.platform.records import ENDED, QueueRow, StoredRun
from sage_core.platform.store import JobStore

T = TypeVar("T")
#: Seconds between two looks at a run that is waited for: the first, and the longest.
SOON, LATER = 0.02, 0.25


class DeployedGraph(Record):
    """A deployment as those see it who start it."""

    name: str
    version: int
    graph: Graph
    #: Params that were given when it was deployed.
    given: tuple[str, ...]


class Desk:
    """One project's runs. Every method but `close` is awaited, and works in one thread that owns a handle on the store.

    Nothing is made of a project that never ran anything until a run is started.
    """

    def __init__(self, host: Host, project: Project) -> None:
        self._host = host
        self._project = project
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="sage-desk")
        self._store: JobStore | None = None
        self._graphs: dict[tuple[str, int], DeployedGraph] = {}

    def close(self) -> None:
        """Let go of the store, after what is under way."""
        self._thread.submit(self._close)
        self._thread.shutdown()

    # ------------------------------------------------------------ deployments

    async def deployed(self) -> Mapping[str, DeployedGraph]:
        """Every deployment, by name; those that another version of SAGE made and this one cannot read are left out."""
        return await self._in_thread(self._deployed, {})

    def _deployed(self, store: JobStore) -> Mapping[str, DeployedGraph]:
        found: dict[tuple[str, int], DeployedGraph] = {}
        for row in store.deployments():
            key = (row.name, row.version)
            if key not in self._graphs:
                try:
                    graph = decode(row.graph)
                except msgspec.DecodeError:
                    continue
                given = tuple(msgspec.msgpack.decode(row.params, type=dict[str, Any]))
                self._graphs[key] = DeployedGraph(name=row.name, version=row.version, graph=graph, given=given)
            found[key] = self._graphs[key]
        self._graphs = found
        return {name: each for (name, _), each in found.items()}

    # ------------------------------------------------------------ starting

    async def invoke(self, name: str, params: Mapping[str, object], caller: Caller, *, priority: int = 0) -> str:
        """Queue a run of a deployment for a caller, and see that workers serve it; returns its id."""

        def start(store: JobStore) -> str:
            order = Order(queue="", priority=priority)
            begun = deployments.prepare_start(store, name, params, order, host=self._host, project=self._project)
            place = msgspec.structs.replace(begun.place, caller=caller)
            begun = msgspec.structs.replace(begun, place=place)
            with store.transaction() as tx:
                run_id = deployments.start(tx, begun, self._host)
            ensure_workers(begun.project, begun.order.queue)
            return run_id

        return await self._in_thread(start)

    async def submit(
        self,
        workflow: Mapping[str, Any],
        params: Mapping[str, object],
        caller: Caller,
        *,
        queue: str,
        priority: int = 0,
        run_id: str = "",
    ) -> str:
        """Queue a run of a workflow given as the tables of its file; returns its id."""

        def start(store: JobStore) -> str:
            project, host = self._project, self._host
            graph = check_tree({"sage": 1, **workflow}, host, base=project.folder)
            id = run_id or launch.new_run_id()
            prepared = launch.bind(graph, params, host, project, run_id=id)
            place = Place(cwd=str(project.folder), project=str(project.folder), caller=caller)
            order = Order(queue=queue, priority=priority)
            with store.transaction() as tx:
                insert(
                    tx,
                    graph,
                    prepared,
                    id,
                    host=host,
                    paths=project.paths,
                    config=project.config,
                    order=order,
                    place=place,
                )
            ensure_workers(project, queue)
            return id

        return await self._in_thread(start)

    async def wake(self) -> None:
        """See that every queue with work that is due is served."""

        def start(store: JobStore) -> Sequence[str]:
            return wake(self._project)

        nobody: Sequence[str] = ()
        await self._in_thread(start, nobody)

    # ------------------------------------------------------------ looking

    async def run(self, run_id: str) -> StoredRun:
        """A run by its whole id; raises `UsageError` where there is none."""

        def read(store: JobStore) -> StoredRun:
            run = store.run(run_id)
            if run.id != run_id:
                raise UsageError(f"No run has the id {run_id!r}.")
            return run

        if self._store is None and not self._there():
            raise UsageError(f"No run has the id {run_id!r}.", "nothing has run here yet")
        return await self._in_thread(read)

    async def view(self, run: StoredRun) -> RunView:
        """Everything that is known of a run."""
        return await self._in_thread(lambda store: inspect_run(store, store.run(run.id), self._project.paths))

    async def runs(self, limit: int, *, workflow: str | None = None, tenant: str | None = None) -> Sequence[StoredRun]:
        """Runs, newest first; `tenant` keeps those that were started for it."""

        def read(store: JobStore) -> Sequence[StoredRun]:
            # A tenant's own may lie far behind those of others: looked for in ever longer lists.
            asked = limit if tenant is None else 4 * limit
            while True:
                rows = store.runs(asked, workflow=workflow)
                found = [run for run in rows if tenant is None or caller_of(run).tenant == tenant]
                if len(found) >= limit or len(rows) < asked:
                    return found[:limit]
                asked *= 4

        return await self._in_thread(read, [])

    async def queues(self) -> Sequence[QueueRow]:
        """Queues that hold unfinished jobs or were ever paused, without the private ones of driven runs."""

        def read(store: JobStore) -> Sequence[QueueRow]:
            return [queue for queue in store.queues() if not queue.name.startswith(PRIVATE)]

        return await self._in_thread(read, [])

    async def follow(self, run_id: str) -> AsyncGenerator[str | Report]:
        """Wait until a run has ended: yields the first step of each stage as it begins, and at last what it came to."""
        told, wait = "", SOON
        while True:
            status, stage = await self._in_thread(lambda store: _at(store, run_id))
            if status in ENDED:
                yield await self._in_thread(
                    lambda store: follow(store, run_id, paths=self._project.paths, watch=lambda event: None)
                )
                return
            if stage and stage != told:
                yield stage
                told, wait = stage, SOON
            # The store tells nobody: a run that lasts is looked at less often.
            await asyncio.sleep(wait)
            wait = min(LATER, wait * 1.5)

    async def cancel(self, run_id: str) -> bool:
        """Stop a run; False when it has ended already."""

        def stop(store: JobStore) -> bool:
            stopped = store.cancel_run(run_id)
            announce(store, self._host, run_id)
            return stopped

        return await self._in_thread(stop)

    # ------------------------------------------------------------ the thread

    async def _in_thread(self, work: Callable[[JobStore], T], nothing: T | None = None) -> T:
        def run() -> T:
            if self._store is None:
                if nothing is not None and not self._there():
                    return nothing
                self._store = self._project.open_store()
            return work(self._store)

        # Shielded: what has begun in the thread ends there, and a caller that goes away must not leave it half told.
        return await asyncio.shield(asyncio.get_running_loop().run_in_executor(self._thread, run))

    def _there(self) -> bool:
        return bool(self._project.config.store.url) or self._project.paths.database.exists()

    def _close(self) -> None:
        if self._store is not None:
            self._store.close()


def _at(store: JobStore, run_id: str) -> tuple[str, str]:
    run = store.run(run_id)
    if run.status in ENDED:
        return run.status, ""
    running = [job.stage for job in store.jobs(run_id) if job.state == "running"]
    return run.status, running[0] if running else ""
