"""From a workflow file and parameter values to a driven run: the one path behind `sage run` and `sage runs resume`."""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import time
from collections.abc import Mapping
from pathlib import Path

import msgspec

from sage_core.common.config import Config, load_config
from sage_core.common.errors import UsageError
from sage_core.common.host import Host
from sage_core.common.paths import Paths, find_paths
from sage_core.common.records import Record
from sage_core.kernel.control_plane.engines import identify
from sage_core.kernel.control_plane.model_specs import resolve_models
from sage_core.kernel.dataflow import check
from sage_core.kernel.dataflow.bind import bind_params
from sage_core.kernel.dataflow.graph import Graph
from sage_core.kernel.runtime.demands import refuse_unmet
from sage_core.kernel.runtime.drive import Drive, Settings
from sage_core.kernel.runtime.executor import Executor
from sage_core.kernel.runtime.prepared import Prepared, prepare
from sage_core.kernel.runtime.preview import Decision, preview
from sage_core.kernel.runtime.progress import Watch
from sage_core.kernel.runtime.report import Report
from sage_core.kernel.runtime.submit import PRIVATE, Order, Place, insert, new_run
from sage_core.kernel.scheduler.node import this_node
from sage_core.kernel.scheduler.placement import registered
from sage_core.platform.records import NewRun, StoredRun
from sage_core.platform.store import JobStore


class Project(Record):
    """Where a command works: its folders and its configuration."""

    #: Where sage.toml is looked for, here and upwards.
    folder: Path
    paths: Paths
    config: Config

    @property
    def url(self) -> str:
        """The job store."""
        return self.config.store.url or f"sqlite:///{self.paths.database}"

    def open_store(self) -> JobStore:
        """A handle on the job store."""
        return JobStore.open(self.url, synchronous=self.config.store.synchronous)


def find_project(start: Path) -> Project:
    """The project that a folder belongs to."""
    return Project(folder=start.absolute(), paths=find_paths(start), config=load_config(start))


def load(path: Path, host: Host, project: Project, *, profile: str | None = None) -> Graph:
    """Read and check a workflow file against the installed operators and the project's models."""
    return check.load(path, host, profile=profile, known_models=project.config.models)


def bind(graph: Graph, given: Mapping[str, object], host: Host, project: Project, *, run_id: str) -> Prepared:
    """Give the graph its parameters and models; everything that can be wrong before a run is wrong here."""
    return prepare(
        graph,
        bind_params(graph, given, cwd=Path.cwd()),
        host,
        models=resolve_models(graph.models, project.config.models, project.paths),
        identify=lambda spec: identify(spec, host),
        run_id=run_id,
        environ=os.environ,
    )


def new_run_id() -> str:
    """A run id that sorts by time and is short enough to type."""
    return f"{time.strftime('%y%m%d-%H%M%S', time.gmtime())}-{secrets.token_hex(3)}"


def run(
    graph: Graph,
    prepared: Prepared,
    run_id: str,
    *,
    host: Host,
    project: Project,
    settings: Settings,
    watch: Watch,
    workflow: Path | None = None,
    profile: str | None = None,
    forked_from: str | None = None,
) -> Report:
    """Submit a run and drive it to its end.

    Args:
        workflow: the file, and `profile` what was applied to it, so that a resume can tell how it has changed.
    """
    place = Place(
        cwd=str(Path.cwd()),
        project=str(project.folder),
        workflow=str(workflow.absolute()) if workflow else "",
        profile=profile,
    )
    order = Order(queue=f"{PRIVATE}{run_id}", forked_from=forked_from)
    # Its workers are processes of this machine.
    refuse_unmet(prepared, lambda: [this_node(project.config)])
    with project.open_store() as store:
        drive = _drive(store, host, project, settings, watch)
        return asyncio.run(drive.start(run_id, prepared, new_run(graph, prepared, run_id, place=place, order=order)))


def plan(
    graph: Graph, prepared: Prepared, run_id: str, *, host: Host, project: Project, probe: bool
) -> dict[str, Decision]:
    """What `run` would do; nothing is kept of it."""
    new = _new_run(graph, prepared, run_id, project)

    async def decide(store: JobStore) -> dict[str, Decision]:
        executor = Executor(
            store,
            StoredRun(**msgspec.structs.asdict(new)),
            prepared,
            worker="",
            host=host,
            paths=project.paths,
            config=project.config,
            inline=True,
            warn=lambda message: None,
        )
        async with executor:
            return await preview(executor, store, new, probe=probe)

    with project.open_store() as store:
        refuse_unmet(prepared, lambda: registered(store, project.config))
        return asyncio.run(decide(store))


def resume(
    run_id: str, *, host: Host, project: Project, settings: Settings, watch: Watch, redrive: bool = False
) -> Report:
    """Drive a run on from where it stopped, over the graph and settings, and in the folder, it was started with.

    Args:
        redrive: rows that failed and were skipped are tried again too.
    """
    with project.open_store() as store:
        stored = store.run(run_id)
        place = msgspec.msgpack.decode(stored.options, type=Place)
        if not Path(place.cwd).is_dir():
            raise UsageError(f"run {stored.id} was started in {place.cwd}, which is gone", "put the folder back")
        # Paths of documents are relative to where the run was started.
        with contextlib.chdir(place.cwd):
            project = msgspec.structs.replace(
                project, folder=Path(place.project), config=load_config(Path(place.project))
            )
            return asyncio.run(_drive(store, host, project, settings, watch).resume(stored, redrive=redrive))


def enqueue(graph: Graph, prepared: Prepared, run_id: str, *, host: Host, project: Project, order: Order) -> str:
    """Queue a run for the workers of its queue; returns its id, or that of the run kept instead of it."""
    with project.open_store() as store, store.transaction() as tx:
        return insert(
            tx,
            graph,
            prepared,
            run_id,
            host=host,
            paths=project.paths,
            config=project.config,
            order=order,
            place=Place(cwd=str(Path.cwd()), project=str(project.folder)),
        )


def _new_run(graph: Graph, prepared: Prepared, run_id: str, project: Project) -> NewRun:
    place = Place(cwd=str(Path.cwd()), project=str(project.folder))
    # A queue of its own: workers of other queues leave a run to whoever drives it.
    return new_run(graph, prepared, run_id, place=place, order=Order(queue=f"{PRIVATE}{run_id}"))


def _drive(store: JobStore, host: Host, project: Project, settings: Settings, watch: Watch) -> Drive:
    return Drive(
        store,
        url=project.url,
        folder=project.folder,
        host=host,
        paths=project.paths,
        config=project.config,
        settings=settings,
        watch=watch,
    )
