"""What a run came to: outputs, statistics per step, failures; the same for a fresh, a reused and a resumed run."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sage_core.common.operators import Artifact
from sage_core.common.records import Record, RowFailure, RunStatus
from sage_core.kernel.dataflow.graph import RUN, Binding
from sage_core.kernel.dataflow.plan import PARAMS, Stage
from sage_core.kernel.runtime.inputs import Inputs, column_grain
from sage_core.kernel.runtime.results import Result, decode_result
from sage_core.kernel.runtime.table import Table
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
    tokens: dict[str, int] = {}
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


def silent_steps(steps: Mapping[str, StepReport]) -> tuple[str, ...]:
    """Warnings for steps that had rows before them and ran on none."""
    return tuple(
        f"step {name!r} ran on 0 of {report.absent} rows"
        for name, report in steps.items()
        if report.rows_in == 0 and report.absent
    )


def results_of(store: JobStore, jobs: list[JobRow]) -> dict[str, Result]:
    """Results of the finished jobs, by key."""
    keys = {job.result_key for job in jobs if job.result_key}
    return {key: decode_result(body) for key, body in store.results(sorted(keys)).items()}


def outputs_of(inputs: Inputs, store: JobStore) -> dict[str, Any]:
    """Values of the declared outputs; without any, every column of the steps that nothing reads."""
    graph = inputs.prepared.graph
    if graph.outputs:
        return {name: _output(inputs, store, binding) for name, binding in graph.outputs.items()}
    return {}


def _output(inputs: Inputs, store: JobStore, binding: Binding) -> Any:
    """A value of the run; for a column of rows, the list of its present values in row order."""
    for ref in binding.refs:
        column = f"{ref.step}.{ref.column}"
        if ref.step == PARAMS:
            value = inputs.prepared.params.get(ref.column)
            return shown(_deep(value, ref.fields))
        stage = _stage_of(inputs, ref.step)
        grain = column_grain(inputs.prepared, stage, column)
        values = _values(inputs.values(store, stage, grain, [column]), column)
        if grain != RUN:
            return [shown(_deep(value, ref.fields)) for value in values]
        if values:
            return shown(_deep(values[0], ref.fields))
    return shown(binding.value)


def _values(tables: list[Table], column: str) -> list[Any]:
    found = []
    for table in tables:
        data = table.columns[column]
        found += [value for row, value in enumerate(data.values) if data.present is None or data.present[row]]
    return found


def _stage_of(inputs: Inputs, step: str) -> Stage:
    return next(stage for stage in inputs.prepared.stages.values() if step in stage.steps)


def _deep(value: Any, fields: tuple[str, ...]) -> Any:
    for name in fields:
        value = value.get(name) if isinstance(value, Mapping) else None
    return value


def shown(value: Any) -> Any:
    """The value as JSON can hold it: arrays as lists, artifacts as their digest and place."""
    if isinstance(value, Artifact):
        return {"artifact": type(value).__name__, "digest": value.digest, "path": str(value.path)}
    if isinstance(value, Mapping):
        return {str(key): shown(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [shown(item) for item in value]
    return value.tolist() if hasattr(value, "tolist") else value
