"""Runs one step over all rows of its grain inside a job: presence, then calls, then columns and presence again."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from sage_core.common.errors import OperatorError
from sage_core.common.operators import ArtifactDir
from sage_core.common.records import Record, RowFailure
from sage_core.kernel.dataflow.expressions import Expression
from sage_core.kernel.dataflow.graph import RUN, Binding, Ref, Step
from sage_core.kernel.runtime import table as tables
from sage_core.kernel.runtime.bound import Bound
from sage_core.kernel.runtime.calls import BATCH, Outcome, describe
from sage_core.kernel.runtime.memo import Memo
from sage_core.kernel.runtime.table import Column, Frame, Mask, Table
from sage_core.kernel.runtime.values import has_record, plain


class StepStats(Record):
    """What one step did in one job."""

    #: Rows the step ran on, rows it gave, rows that were absent, rows that failed and were skipped.
    rows_in: int = 0
    rows_out: int = 0
    absent: int = 0
    failed: int = 0
    seconds: float = 0.0
    #: Rows of a memoised operator that were computed, and that were remembered.
    computed: int = 0
    remembered: int = 0


class Running(Protocol):
    """What a step needs from the job it runs in."""

    #: Rows that failed and were skipped.
    failures: list[RowFailure]

    def bound(self, step: Step, cell: Mapping[str, Any]) -> Bound:
        """The step's operator with the options of one matrix cell."""
        ...

    def columns_of(self, ref: Ref) -> Sequence[str]:
        """Columns behind a reference: several when it names a whole record."""
        ...

    def expression(self, text: str) -> Expression:
        """Compile a condition once."""
        ...

    def memo(self, step: Step, cell: Mapping[str, Any]) -> Memo | None:
        """The step's row memory, or None when its operator does not ask for one."""
        ...

    def new_artifact(self, step: Step) -> ArtifactDir:
        """An empty directory that becomes an artifact."""
        ...

    def redact(self, text: str) -> str:
        """The text with every secret's value replaced."""
        ...


async def run_step(job: Running, frame: Frame, step: Step) -> StepStats:
    """Run the step and add its columns to the frame."""
    started = time.perf_counter()
    rows, columns = select(job, frame, step)
    n = frame.tables[step.grain].n
    shape = step.signature.shape
    if shape == "collect":
        rows_out, failed = await _collect(job, frame, step, rows, columns)
    elif shape == "expand" or step.matrix:
        rows_out, failed = await _expand(job, frame, step, rows, columns)
    else:
        rows_out, failed = await _map(job, frame, step, rows, columns)
    memos = [memo for cell in step.matrix or ({},) if (memo := job.memo(step, cell))]
    return StepStats(
        rows_in=len(rows),
        rows_out=rows_out,
        absent=n - len(rows),
        failed=failed,
        seconds=time.perf_counter() - started,
        computed=sum(memo.take_computed() for memo in memos),
        remembered=sum(memo.take_remembered() for memo in memos),
    )


def select(job: Running, frame: Frame, step: Step) -> tuple[Sequence[int], dict[str, Any]]:
    """Rows the step runs on, and its port values on just those rows."""
    n = frame.tables[step.grain].n
    mask: Mask = None
    found: dict[str, Column] = {}
    for port, binding in step.ports.items():
        column = bound_column(job, frame, step.grain, binding, n)
        found[port] = column
        mask = tables.both(mask, column.present)
    for other in step.rows:
        mask = tables.both(mask, frame.mark(step.grain, other))
    if step.when:
        mask = tables.both(mask, _when(job, frame, step, n, mask))
    rows = tables.rows_of(mask, n)
    if len(rows) == n:
        return rows, {port: column.values for port, column in found.items()}
    return rows, {port: tables.take(column.values, rows) for port, column in found.items()}


def bound_column(job: Running, frame: Frame, grain: str, binding: Binding, n: int) -> Column:
    """The column a binding names, seen from `grain`: a literal, a reference, or the first present of several."""
    if not binding.refs:
        return Column([binding.value] * n)
    return tables.merge([_ref_column(job, frame, grain, ref) for ref in binding.refs], n)


def _ref_column(job: Running, frame: Frame, grain: str, ref: Ref) -> Column:
    column = frame.column(grain, f"{ref.step}.{ref.column}") if ref.column else _record(job, frame, grain, ref)
    if ref.fields:
        present = column.present
        values = [
            _field(value, ref.fields) if present is None or present[row] else None
            for row, value in enumerate(column.values)
        ]
        column = Column(values, present)
    if ref.optional and column.present is not None:
        values = [value if here else None for value, here in zip(column.values, column.present, strict=True)]
        return Column(values)
    return column


def _record(job: Running, frame: Frame, grain: str, ref: Ref) -> Column:
    """All columns of a step as one column of dictionaries; they share their presence."""
    names = [key.split(".", 1)[1] for key in job.columns_of(ref)]
    columns = [frame.column(grain, key) for key in job.columns_of(ref)]
    rows = zip(*(column.values for column in columns), strict=True)
    return Column([dict(zip(names, row, strict=True)) for row in rows], columns[0].present)


def _field(value: Any, names: Sequence[str]) -> Any:
    for name in names:
        value = value.get(name) if isinstance(value, Mapping) else getattr(value, name, None)
    return value


def _when(job: Running, frame: Frame, step: Step, n: int, mask: Mask) -> list[bool]:
    expression = job.expression(step.when)
    read = dict(
        zip(expression.names, (_ref_column(job, frame, step.grain, ref) for ref in step.when_refs), strict=True)
    )
    truth = []
    for row in range(n):
        here = (mask is None or mask[row]) and all(c.present is None or c.present[row] for c in read.values())
        truth.append(bool(here and expression.evaluate({name: column.values[row] for name, column in read.items()})))
    return truth


async def _call(job: Running, step: Step, cell: Mapping[str, Any], columns: Mapping[str, Any], n: int) -> Outcome:
    bound = job.bound(step, cell)
    memo = job.memo(step, cell)
    arrays = [columns[port.name] for port in step.signature.ports if port.name in columns]
    if not step.signature.batched:
        rows = [_listed(values) for values in arrays]
        return await (memo.rows(bound.call(), rows, n) if memo else bound.call().rows(rows, n))
    size = step.batch_max or BATCH
    if all(port.many == "batch" for port in step.signature.ports if port.name in columns):
        call = bound.call()
        return await (memo.batches(call, arrays, n, size) if memo else call.batches(arrays, n, size))
    return await _mixed(bound, step, columns, n, size)


async def _mixed(bound: Bound, step: Step, columns: Mapping[str, Any], n: int, size: int) -> Outcome:
    """A batch operator with ports that are values of the run: those are passed whole to every call."""
    names = [port.name for port in step.signature.ports if port.name in columns]
    fixed = {
        port.name: columns[port.name][0]
        for port in step.signature.ports
        if port.name in columns and port.many == "one" and n
    }
    call = bound.call().fixed({names.index(name): value for name, value in fixed.items()})
    return await call.batches([columns[name] for name in names if name not in fixed], n, size)


def _listed(values: Any) -> Any:
    return values if isinstance(values, list) else list(values)


async def _map(job: Running, frame: Frame, step: Step, rows: Sequence[int], columns: dict[str, Any]) -> tuple[int, int]:
    table = frame.tables[step.grain]
    n = len(rows)
    outcome = await (_repeat(job, step, columns, n) if step.repeat else _call(job, step, {}, columns, n))
    failed = fail_or_skip(job, frame, step, [(rows[row], error) for row, error in sorted(outcome.failures.items())])
    good = [row for row in range(n) if row not in outcome.failures] if outcome.failures else range(n)
    if step.signature.shape == "filter":
        good = [row for row in good if _kept(step, outcome.values[row])]
        made = {port: tables.take(values, good) for port, values in columns.items()}
    else:
        values = outcome.values if len(good) == n else tables.take(outcome.values, good)
        made = output_columns(step, values)
    places = rows if len(good) == n else [rows[row] for row in good]
    for name, values in made.items():
        full, mask = tables.spread(values, places, table.n)
        table.columns[f"{step.name}.{name}"] = Column(full, mask)
    table.marks[step.name] = tables.spread(list(places), places, table.n)[1]
    return len(places), failed


def _kept(step: Step, verdict: Any) -> bool:
    if hasattr(verdict, "keep"):
        return bool(verdict.keep)
    raise OperatorError(
        step.name, f"a filter returned {type(verdict).__name__}, not Keep", help="return Keep(True) or Keep(False)"
    )


async def _repeat(job: Running, step: Step, columns: dict[str, Any], n: int) -> Outcome:
    """Feed the step's output back until its condition holds; rows that never satisfy it keep their last output."""
    assert step.repeat is not None
    until = job.expression(step.repeat.until)
    current = {port: list(values) for port, values in columns.items()}
    values: list[Any] = [None] * n
    failures: dict[int, Exception] = {}
    todo = list(range(n))
    for _ in range(step.repeat.max):
        if not todo:
            break
        outcome = await _call(
            job, step, {}, {port: [given[row] for row in todo] for port, given in current.items()}, len(todo)
        )
        later = []
        for place, row in enumerate(todo):
            if place in outcome.failures:
                failures[row] = outcome.failures[place]
                continue
            values[row] = outcome.values[place]
            outputs = {name: column[0] for name, column in output_columns(step, [values[row]]).items()}
            if not until.evaluate(outputs | {f"{step.name}.{name}": value for name, value in outputs.items()}):
                later.append(row)
                for port, name in step.repeat.feed.items():
                    current[port][row] = outputs[name]
        todo = later
    return Outcome(values, failures)


async def _expand(
    job: Running, frame: Frame, step: Step, rows: Sequence[int], columns: dict[str, Any]
) -> tuple[int, int]:
    """Open a child grain: one row per yield, or per matrix cell, or per yield of each cell; parents stay in order."""
    n = len(rows)
    cells = step.matrix or ({},)
    outcomes = [await _call(job, step, cell, columns, n) for cell in cells]
    broken = sorted(
        {(row, cell): error for cell, each in enumerate(outcomes) for row, error in each.failures.items()}.items()
    )
    failed = fail_or_skip(job, frame, step, [(rows[row], error) for (row, _), error in broken])
    expands = step.signature.shape == "expand"
    parent: list[int] = []
    items: list[Any] = []
    keys: list[int] = []
    absent: set[int] = set()
    for row in range(n):
        for cell, outcome in enumerate(outcomes):
            if expands:
                made = [] if row in outcome.failures else outcome.values[row]
            else:
                made = [outcome.values[row]]
                if row in outcome.failures or (step.signature.shape == "filter" and not _kept(step, made[0])):
                    absent.add(len(items))
            parent += [rows[row]] * len(made)
            items += made
            keys += [cell] * len(made)
    table = Table(step.out, len(items), None if step.grain == RUN else parent)
    frame.tables[step.out] = table
    present = [row for row in range(len(items)) if row not in absent]
    if step.signature.shape == "filter":
        position = {row: place for place, row in enumerate(rows)}
        made_columns = {
            port: tables.take(values, [position[parent[row]] for row in present]) for port, values in columns.items()
        }
    else:
        made_columns = output_columns(step, items if not absent else [items[row] for row in present])
    for name, values in made_columns.items():
        full, mask = tables.spread(values, present, len(items))
        table.columns[f"{step.name}.{name}"] = Column(full, mask)
    for option in cells[0]:
        table.columns[f"{step.name}.{option}"] = Column([cells[cell][option] for cell in keys])
    table.marks[step.name] = tables.spread(list(present), present, len(items))[1]
    return len(present), failed


async def _collect(
    job: Running, frame: Frame, step: Step, rows: Sequence[int], columns: dict[str, Any]
) -> tuple[int, int]:
    """One row per row of the step's `out` grain: all rows below it together, in order."""
    target = frame.tables[step.out]
    path = frame.path(step.grain, step.out)
    groups: list[list[int]] = [[] for _ in range(target.n)]
    for place, row in enumerate(rows):
        groups[row if path is None else path[row]].append(place)
    # A row of `out` that was never expanded gets nothing; one that was expanded into no rows gets an empty data set.
    mark = frame.mark(step.out, _expanded_by(frame, step))
    wanted = [row for row in range(target.n) if mark is None or mark[row]]
    values, failures = [], {}
    good = []
    for row in wanted:
        try:
            values.append(
                await fold_rows(
                    job, step, [(len(groups[row]), {p: tables.take(c, groups[row]) for p, c in columns.items()})]
                )
            )
            good.append(row)
        except Exception as error:  # noqa: BLE001 - whatever an operator raises is that group's failure
            failures[row] = error
    failed = fail_or_skip(job, frame, step, sorted(failures.items()), grain=step.out)
    for name, made in output_columns(step, values).items():
        full, mask = tables.spread(made, good, target.n)
        target.columns[f"{step.name}.{name}"] = Column(full, mask)
    target.marks[step.name] = tables.spread(list(good), good, target.n)[1]
    return len(good), failed


def _expanded_by(frame: Frame, step: Step) -> str:
    """The step that opened the grain right below `out` on the way to the collected rows."""
    grain = step.grain
    while grain not in (step.out, RUN) and frame.parent(grain) != step.out:
        grain = frame.parent(grain)
    return grain


async def fold_rows(job: Running, step: Step, parts: Sequence[tuple[int, Mapping[str, Any]]]) -> Any:
    """Collect rows that come in several parts into one value: a fold sees each part, a Dataset port their sum."""
    bound = job.bound(step, {})
    names = [port.name for port in step.signature.ports if port.name in step.ports]
    if step.signature.form == "fold":
        add, finish = bound.fold()
        for n, columns in parts:
            for start in range(0, n, size := step.batch_max or 4096):
                add(*[columns[name][start : start + size] for name in names])
        return finish(job.new_artifact(step))
    many = {port.name for port in step.signature.ports if port.many == "dataset"}
    whole = [
        tables.concat([columns[name] for _, columns in parts])
        if name in many
        else next((c[name][0] for n, c in parts if n), None)
        for name in names
    ]
    return await bound.call().one(whole)


def output_columns(step: Step, values: Any) -> dict[str, Any]:
    """From what the calls returned to one sequence per column, in the declared order."""
    declared = step.signature.columns
    if step.signature.shape == "sink":
        return {}
    if not step.signature.is_record:
        (name,) = declared
        return {name: _typed(step, name, values)}
    rows = [plain(value) for value in values]
    for row in rows:
        if not isinstance(row, dict) or row.keys() != declared.keys():
            got = sorted(row) if isinstance(row, dict) else type(row).__name__
            raise OperatorError(step.name, f"returned {got}, declared {sorted(declared)}")
    return {name: _typed(step, name, [row[name] for row in rows]) for name in declared}


def _typed(step: Step, name: str, values: Any) -> Any:
    kind = step.signature.columns[name]
    if kind.kind == "vector" and not kind.optional:
        return _block(step, name, values)
    if isinstance(values, list):
        return [plain(value) for value in values] if has_record(kind) else values
    return list(values)


def _block(step: Step, name: str, values: Any) -> Any:
    import numpy  # noqa: PLC0415 - only runs with vectors pay for numpy

    try:
        block = numpy.ascontiguousarray(values, dtype=numpy.float32)
    except ValueError as error:
        raise OperatorError(step.name, f"column {name!r}: vectors of different dimensions ({error})") from None
    if len(block) == 0:
        block = block.reshape(0, 0)
    dim = step.signature.columns[name].dim
    if block.ndim != 2 or (dim and len(block) and block.shape[1] != dim):
        raise OperatorError(
            step.name, f"column {name!r}: expected vectors of dimension {dim or 'd'}, got shape {block.shape[1:]}"
        )
    return block


def fail_or_skip(
    job: Running, frame: Frame, step: Step, failures: Sequence[tuple[int, Exception]], *, grain: str | None = None
) -> int:
    """Record failed rows, or raise the first when the step does not skip; returns how many failed."""
    for row, error in failures:
        label = frame.label(step.grain if grain is None else grain, row)
        message = job.redact(describe(error))
        if step.on_error == "fail":
            raise OperatorError(step.name, message, label, 'mend the input, or set on_error = "skip"') from error
        job.failures.append(RowFailure(step=step.name, row=label, kind=type(error).__name__, message=message))
    return len(failures)
