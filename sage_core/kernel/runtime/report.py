"""What a run came to: outputs, statistics per step, failures; the same for a fresh, a reused and a resumed run."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from sage_core.common.operators import Artifact
from sage_core.common.records import Record, RowFailure, RunStatus
from sage_core.kernel.dataflow.graph import RUN, Binding, Graph
from sage_core.kernel.dataflow.plan import PARAMS, Stage, holder, inputs_of, output_grain, output_reads, root_of
from sage_core.kernel.runtime.bindings import bound_column
from sage_core.kernel.runtime.inputs import Inputs
from sage_core.kernel.runtime.results import Result, decode_result
from sage_core.kernel.runtime.table import rows_of
from sage_core.platform.records import JobRow
from sage_core.platform.store import JobStore


class Partitions(Record):
    """Jobs of a step's stage: all, those whose result was there already, those run in this session."""

    total: int = 0
    reused: int = 0
    run: int = 0


class StepReport(Record):
    """One step over the whole run."""

    rows_in: int = 0
    rows_out: int = 0
    absent: int = 0
    failed: int = 0
    #: Seconds spent in jobs of this session.
    seconds: float = 0.0
    partitions: Partitions = Partitions()
    #: Rows of a memoised step that this session computed, and that it remembered.
    computed: int = 0
    remembered: int = 0


class Report(Record):
    """A run's outcome, as ``sage run --json`` prints it."""

    run_id: str
    status: RunStatus
    outputs: dict[str, Any] = {}
    steps: dict[str, StepReport] = {}
    #: Tokens of the answers this session had generated: ``prompt`` and ``completion``.
    tokens: dict[str, int] = {}
    #: Outputs that a model wrote → the model's name and backend.
    written_by: dict[str, str] = {}
    error: str = ""
    failures: tuple[RowFailure, ...] = ()
    warnings: tuple[str, ...] = ()


def step_reports(
    inputs: Inputs, jobs: list[JobRow], results: Mapping[str, Result], session: int
) -> dict[str, StepReport]:
    """Sum the statistics of finished jobs by step."""
    reports = {}
    for stage in inputs.prepared.stages.values():
        own = [job for job in jobs if job.stage == stage.name]
        done = [(job, results[key]) for job in own if job.state == "done" and (key := job.result_key or "") in results]
        fresh = [result for job, result in done if job.session == session and not job.reused]
        counts = Partitions(total=len(own), reused=len(done) - len(fresh), run=len(fresh))
        for name in stage.steps:
            every = [result.stats[name] for _, result in done if name in result.stats]
            here = [result.stats[name] for result in fresh if name in result.stats]
            reports[name] = StepReport(
                rows_in=sum(stats.rows_in for stats in every),
                rows_out=sum(stats.rows_out for stats in every),
                absent=sum(stats.absent for stats in every),
                failed=sum(stats.failed for stats in every),
                seconds=round(sum(stats.seconds for stats in here), 6),
                partitions=counts,
                computed=sum(stats.computed for stats in here),
                remembered=sum(stats.remembered for stats in here),
            )
    return reports


def failures_of(inputs: Inputs, jobs: list[JobRow], results: Mapping[str, Result]) -> tuple[RowFailure, ...]:
    """Rows that were skipped, by step and row; a reused result's rows are numbered as this run counts them."""
    steps = {name: place for place, name in enumerate(inputs.prepared.graph.steps)}
    found: list[tuple[int, list[int], RowFailure]] = []
    for job in jobs:
        result = results.get(job.result_key or "") if job.state == "done" else None
        for failure in result.failures if result else ():
            path = [int(part) for part in failure.row.split("/") if part]
            if result and path:
                path[0] += job.start - result.start
            row = "/".join(map(str, path))
            found.append((steps[failure.step], path, msgspec.structs.replace(failure, row=row)))
    return tuple(failure for _, _, failure in sorted(found, key=lambda entry: entry[:2]))


def too_many(inputs: Inputs, steps: Mapping[str, StepReport]) -> str:
    """What is wrong when a step skipped more rows than its ``max_errors`` allows; else an empty string."""
    for name, report in steps.items():
        bound = inputs.prepared.graph.steps[name].max_errors
        if bound is None:
            continue
        allowed = bound * report.rows_in if 0 < bound < 1 else bound
        if report.failed > allowed:
            limit = f"{bound:.0%} of {report.rows_in}" if 0 < bound < 1 else f"{bound:.0f}"
            return f"step {name!r}: {report.failed} rows failed, max_errors allows {limit}"
    return ""


def silent_steps(graph: Graph, steps: Mapping[str, StepReport]) -> tuple[str, ...]:
    """Warnings for steps that ran on none of their rows, where no input was empty and no branch was meant."""
    found = []
    for name, report in steps.items():
        step = graph.steps[name]
        inputs = {column.split(".", 1)[0] for column in inputs_of(graph, step)} - {PARAMS}
        branch = bool(step.when) and report.absent == 1
        if report.rows_in == 0 and report.absent and not branch and all(steps[other].rows_out for other in inputs):
            found.append(f"step {name!r} ran on 0 of {report.absent} rows")
    return tuple(found)


def session_tokens(jobs: list[JobRow], results: Mapping[str, Result], session: int) -> dict[str, int]:
    """Tokens that jobs of this session cost."""
    fresh = [
        results[key]
        for job in jobs
        if job.session == session and not job.reused and (key := job.result_key or "") in results
    ]
    return {kind: sum(result.tokens.get(kind, 0) for result in fresh) for kind in ("prompt", "completion")}


def written_by(inputs: Inputs) -> dict[str, str]:
    """Outputs that come straight from a step with a model and that may differ from call to call: generated text."""
    graph, found = inputs.prepared.graph, {}
    for name, binding in graph.outputs.items():
        for ref in binding.refs:
            step = graph.steps.get(ref.step)
            if step is None or step.signature.pure:
                continue
            models = [inputs.prepared.options[step.name].get(o.name) for o in step.signature.options if o.is_model]
            if models and isinstance(models[0], str):
                found[name] = models[0]
    return found


def results_of(store: JobStore, jobs: list[JobRow]) -> dict[str, Result]:
    """Results of the finished jobs, by key."""
    keys = {job.result_key for job in jobs if job.result_key}
    return {key: decode_result(body) for key, body in store.results(sorted(keys)).items()}


def outputs_of(inputs: Inputs, store: JobStore) -> dict[str, Any]:
    """Values of the run's outputs."""
    return {name: _output(inputs, store, binding) for name, binding in inputs.prepared.graph.outputs.items()}


def _output(inputs: Inputs, store: JobStore, binding: Binding) -> Any:
    """A value of the run, null where it is absent; for rows, the list of those that are present, in their order."""
    graph = inputs.prepared.graph
    reads: dict[str, tuple[str, ...]] = {}
    grain = output_grain(graph, binding)
    columns, openers = output_reads(graph, binding)
    joins = {name: inputs.prepared.stages[name].writes for name, step in graph.steps.items() if step.join}
    for column in columns:
        owner = holder(graph, grain, column, joins)
        source = PARAMS if owner == PARAMS else _stage_of(inputs, owner)
        reads[source] = (*reads.get(source, ()), column)
    for opener in openers:
        reads.setdefault(_stage_of(inputs, opener), ())
    found = []
    for frame in inputs.frames(store, Stage(name="", steps=(), reads=reads), root=root_of(graph, grain)):
        whole = bound_column(graph, frame, grain, binding)
        found += [whole.values[row] for row in rows_of(whole.present, frame.tables[grain].n)]
    return shown(found if grain != RUN else found[0] if found else None)


def _stage_of(inputs: Inputs, step: str) -> str:
    return next(stage.name for stage in inputs.prepared.stages.values() if step in stage.steps)


def shown(value: Any) -> Any:
    """The value as JSON can hold it: arrays as lists, artifacts as their digest and place."""
    if isinstance(value, Artifact):
        return {"artifact": type(value).__name__, "digest": value.digest, "path": str(value.path)}
    if isinstance(value, Mapping):
        return {str(key): shown(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [shown(item) for item in value]
    return value.tolist() if hasattr(value, "tolist") else value
