"""A new run over the graph of an earlier one, in which a step and all that follows from it is computed anew."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from pathlib import Path

import msgspec

from sage_core.common.config import load_config
from sage_core.common.errors import UnknownName, UsageError
from sage_core.common.host import Host
from sage_core.kernel.dataflow.graph import RUN, Graph, Step, decode
from sage_core.kernel.dataflow.plan import PARAMS, inputs_of, owner
from sage_core.kernel.runtime import launch
from sage_core.kernel.runtime.drive import Settings
from sage_core.kernel.runtime.launch import Project
from sage_core.kernel.runtime.progress import Watch
from sage_core.kernel.runtime.report import Report
from sage_core.kernel.runtime.submit import Place
from sage_core.platform.records import StoredRun


def fork(
    run: StoredRun,
    step: str,
    given: Mapping[str, object],
    *,
    host: Host,
    project: Project,
    settings: Settings,
    watch: Watch,
) -> Report:
    """Drive a run like `run`, in its folder and with its parameters save for those given, anew from `step` on."""
    graph = decode(run.graph)
    if step not in graph.steps:
        raise UnknownName("step", step, tuple(graph.steps))
    place = msgspec.msgpack.decode(run.options, type=Place)
    if not Path(place.cwd).is_dir():
        raise UsageError(f"run {run.id} was started in {place.cwd}, which is gone", "put the folder back")
    with contextlib.chdir(place.cwd):
        project = msgspec.structs.replace(project, folder=Path(place.project), config=load_config(Path(place.project)))
        run_id = launch.new_run_id()
        prepared = launch.bind(graph, {**_params(run, graph), **given}, host, project, run_id=run_id)
        return launch.run(
            graph,
            prepared.salted(below(graph, step), run_id),
            run_id,
            host=host,
            project=project,
            settings=settings,
            watch=watch,
            workflow=Path(place.workflow) if place.workflow else None,
            profile=place.profile,
            forked_from=run.id,
        )


def below(graph: Graph, step: str) -> list[str]:
    """A step and all that follows from it: what reads its columns or rows, stands below its rows, or comes after it."""
    found = {step: None}
    for name, other in graph.steps.items():
        if name not in found and found.keys() & _before(graph, other):
            found[name] = None
    return list(found)


def _before(graph: Graph, step: Step) -> set[str]:
    sides = [step.join.left, step.join.right] if step.join else []
    grains = {grain for side in sides for grain in graph.lineage(graph.steps[side].out)}
    grains |= set(graph.lineage(step.grain)) - {RUN}
    columns = {owner(column) for column in inputs_of(graph, step)} - {PARAMS}
    return columns | (grains - {RUN}) | {*step.rows, *step.after, *sides}


def _params(run: StoredRun, graph: Graph) -> dict[str, object]:
    """Parameters the run was given; secrets come from the environment as ever, and relative paths are resolved."""
    values = msgspec.msgpack.decode(run.params, type=dict[str, object])
    return {name: value for name, value in values.items() if name in graph.params and not graph.params[name].secret}
