"""Deployments: checked workflows kept in the job store under a name, with parameters and a queue, to be started by it.

What is kept is the graph, not the file: a workflow file that is edited changes nothing until it is deployed again.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

import msgspec

from sage_core.common.config import load_config
from sage_core.common.errors import BadValue, SageError, UnknownName, UsageError, suggest
from sage_core.common.host import Host
from sage_core.common.records import Record
from sage_core.kernel.dataflow.graph import Graph, Param, Trigger, decode, encode
from sage_core.kernel.dataflow.options import join_path
from sage_core.kernel.dataflow.params import coerce, variable
from sage_core.kernel.runtime import launch
from sage_core.kernel.runtime.demands import refuse_unmet
from sage_core.kernel.runtime.finish import announce_left
from sage_core.kernel.runtime.launch import Project
from sage_core.kernel.runtime.prepared import Prepared
from sage_core.kernel.runtime.submit import PRIVATE, Order, Place, insert
from sage_core.kernel.runtime.triggers import kind_of
from sage_core.kernel.runtime.values import digest
from sage_core.kernel.scheduler.placement import registered
from sage_core.platform.reader import Reader
from sage_core.platform.records import DeploymentRow, ScheduleRow
from sage_core.platform.transaction import Transaction

_NAME = re.compile(r"\w[\w.-]*")


class Deployed(Record):
    """What a deployment came to."""

    name: str
    workflow: str
    #: Counts the times it was deployed.
    version: int
    queue: str
    #: Its schedules as they stand, by id.
    schedules: tuple[ScheduleRow, ...]
    #: Schedules of the version before that this one does not have.
    dropped: int
    #: What is in the way of its schedules here and may not be where they fire.
    warnings: tuple[str, ...]


def deploy(
    graph: Graph, given: Mapping[str, object], *, host: Host, project: Project, name: str = "", queue: str = "default"
) -> Deployed:
    """Keep a workflow under a name, by default its own, with one schedule for each of its cron triggers."""
    name = name or graph.name
    if not _NAME.fullmatch(name):
        raise UsageError(f"{name!r} cannot name a deployment", "use letters, digits, '_', '-' and '.': --name NAME")
    _check_queue(queue)
    params = _kept(graph, given)
    triggers = _named(graph, name)
    starts = [{**params, **trigger.settings["params"]} for trigger in triggers.values()]
    place = Place(cwd=str(Path.cwd()), project=str(project.folder))
    row = DeploymentRow(
        name=name,
        version=1,
        workflow=graph.name,
        graph=encode(graph),
        graph_hash=digest(encode(graph)),
        params=msgspec.msgpack.encode(params),
        options=msgspec.msgpack.encode(place),
        queue=queue,
    )
    with project.open_store() as store, store.transaction() as tx:
        now = tx.now()
        tx.deploy(row)
        for id, trigger in triggers.items():
            spec = msgspec.json.encode(trigger.settings, order="deterministic").decode()
            at = kind_of(host, trigger.kind, trigger.settings).after(now)
            tx.put_schedule(ScheduleRow(id=id, deployment=name, spec=spec, next_at=at))
        return Deployed(
            name=name,
            workflow=graph.name,
            queue=queue,
            dropped=tx.keep_schedules(name, list(triggers)),
            schedules=tuple(schedule for schedule in tx.schedules() if schedule.deployment == name),
            version=find(tx, name).version,
            warnings=_warnings(tx, graph, starts, host, project),
        )


def find(reader: Reader, name: str) -> DeploymentRow:
    """The deployment of a name; raises `UnknownName` with those there are."""
    row = reader.deployment(name)
    if row is None:
        known = tuple(each.name for each in reader.deployments())
        raise UnknownName("deployment", name, known, "Make one: sage deploy WORKFLOW")
    return row


def remove(name: str, project: Project) -> None:
    """Forget a deployment, its schedules and what they fired; its runs stay."""
    with project.open_store() as store, store.transaction() as tx:
        find(tx, name)
        tx.drop_deployment(name)


class Start(Record):
    """A run of a deployment, ready to be queued."""

    run_id: str
    graph: Graph
    prepared: Prepared
    project: Project
    place: Place
    order: Order


def prepare_start(
    reader: Reader, name: str, given: Mapping[str, object], order: Order, *, host: Host, project: Project
) -> Start:
    """Bind a deployment's parameters, and those given over them; raises whatever keeps its run from being queued."""
    row = find(reader, name)
    try:
        graph, run_id = decode(row.graph), launch.new_run_id()
    except msgspec.DecodeError as error:
        problem = f"deployment {row.name!r} was made by another version of SAGE and cannot be read ({error})"
        raise UsageError(problem, "deploy it again: sage deploy WORKFLOW") from None
    place = msgspec.msgpack.decode(row.options, type=Place)
    folder = Path(place.project)
    if folder.is_dir():
        # The models and settings of where it was deployed, as for every session of its runs.
        project = msgspec.structs.replace(project, folder=folder, config=load_config(folder))
    params: dict[str, object] = {**msgspec.msgpack.decode(row.params), **given}
    prepared = launch.bind(graph, params, host, project, run_id=run_id)
    refuse_unmet(prepared, lambda: registered(reader, project.config))
    order = msgspec.structs.replace(order, deployment=row.name, queue=order.queue or row.queue)
    _check_queue(order.queue)
    return Start(run_id=run_id, graph=graph, prepared=prepared, project=project, place=place, order=order)


def start(tx: Transaction, begun: Start, host: Host) -> str:
    """Queue a prepared run; returns its id, or that of the run that has its key and is kept instead of it."""
    return insert(
        tx,
        begun.graph,
        begun.prepared,
        begun.run_id,
        host=host,
        paths=begun.project.paths,
        config=begun.project.config,
        order=begun.order,
        place=begun.place,
    )


def invoke(name: str, given: Mapping[str, object], order: Order, *, host: Host, project: Project) -> str:
    """Queue a run of a deployment; `order.queue` may be empty and then is the deployment's."""
    with project.open_store() as store:
        begun = prepare_start(store, name, given, order, host=host, project=project)
        with store.transaction() as tx:
            run_id = start(tx, begun, host)
        if order.on_conflict == "replace":
            announce_left(store, host, for_ms=0)
        return run_id


def _check_queue(name: str) -> None:
    # A private queue is served by the driver of its run alone, so that the jobs of any other would wait for ever.
    if not name.strip() or name.startswith(PRIVATE):
        raise UsageError(f"{name!r} cannot name a queue", f"a name is not empty and does not begin with {PRIVATE!r}")


def _kept(graph: Graph, given: Mapping[str, object]) -> dict[str, object]:
    """What is given, proven to fit, as it was written: a value that has been read once cannot be read again."""
    kept: dict[str, object] = {}
    for name, value in given.items():
        if name not in graph.params:
            known = tuple(graph.params)
            raise UsageError(f"the workflow {graph.name!r} has no param {name!r}.{suggest(name, known)}")
        param = graph.params[name]
        if param.secret:
            raise UsageError(
                f"param {name!r} is secret and is not kept with a deployment",
                f"its runs read it where they are started: export {variable(name)}=…",
            )
        try:
            coerce(param, value)
        except BadValue as error:
            raise UsageError(error.problem, error.help) from None
        kept[name] = _absolute(param, value, Path.cwd())
    return kept


def _absolute(param: Param, value: object, folder: Path) -> object:
    return join_path(value, folder) if param.type == "path" else value


def _named(graph: Graph, deployment: str) -> dict[str, Trigger]:
    """Cron triggers by the id of their schedule: the deployment's name with their own, or their place in the file."""
    found: dict[str, Trigger] = {}
    for number, trigger in enumerate((each for each in graph.triggers if each.kind == "cron"), 1):
        id = f"{deployment}/{trigger.settings.get('name') or number}"
        if id in found:
            raise UsageError(f"two cron triggers of {graph.name!r} would be schedule {id!r}", "give one another name")
        # Written in the workflow file, so paths start where those of its defaults do.
        params = {
            name: _absolute(graph.params[name], value, Path(graph.base))
            for name, value in trigger.settings.get("params", {}).items()
        }
        found[id] = msgspec.structs.replace(trigger, settings={**trigger.settings, "params": params})
    return found


def _warnings(
    reader: Reader, graph: Graph, params: list[dict[str, object]], host: Host, project: Project
) -> tuple[str, ...]:
    found: dict[str, None] = {}
    for given in params:
        try:
            prepared = launch.bind(graph, given, host, project, run_id="")
            refuse_unmet(prepared, lambda: registered(reader, project.config))
        except SageError as error:
            found[f"a scheduled run could not start here: {error}"] = None
    return tuple(found)
