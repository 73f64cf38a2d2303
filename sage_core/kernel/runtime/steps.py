"""Runs one step over all rows of its grain inside a job: presence, then calls, then columns and presence again."""

from __future__ import annotations

import inspect
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from sage_core.common.errors import OperatorError
from sage_core.common.operators import ArtifactDir
from sage_core.common.records import Record, RowFailure
from sage_core.kernel.dataflow.expressions import Expression
from sage_core.kernel.dataflow.graph import RUN, Graph, Port, Step
from sage_core.kernel.dataflow.plan import expanded_below, expansion, group_grain
from sage_core.kernel.runtime import table as tables
from sage_core.kernel.runtime.bindings import select, select_groups, select_items
from sage_core.kernel.runtime.bound import Bound
from sage_core.kernel.runtime.calls import BATCH, Outcome, describe, kind_of, raise_if_fatal
from sage_core.kernel.runtime.memo import Memo
from sage_core.kernel.runtime.returned import output_columns
from sage_core.kernel.runtime.table import Column, Frame, Table

#: Rows given to a fold at a time when the workflow does not say.
FOLD = 4096
#: Items of a group, in pieces: how many, and the values of each Dataset port.
Pieces = Sequence[tuple[int, Mapping[str, Any]]]


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


class Running:
    """What a step needs from the job it runs in."""

    graph: Graph
    #: The step's operator with the options of one matrix cell, and its row memory where it asks for one.
    bound: Callable[[Step, Mapping[str, Any]], Bound]
    memo: Callable[[Step, Mapping[str, Any]], Memo | None]
    #: Compiles a condition once.
    expression: Callable[[str], Expression]
    #: Makes an empty directory that becomes an artifact.
    new_artifact: Callable[[], ArtifactDir]
    #: Replaces every secret's value in a text.
    redact: Callable[[str], str]
    #: Rows that failed and were skipped.
    failures: list[RowFailure]


async def run_step(job: Running, frame: Frame, step: Step) -> StepStats:
    """Run the step and add its columns to the frame."""
    started = time.perf_counter()
    if step.signature.shape == "collect":
        return await run_collect(job, frame, step, [frame])
    rows, columns = select(job.graph, job.expression, frame, step)
    opens = step.signature.shape == "expand" or step.matrix
    rows_out, failed = await (_expand if opens else _map)(job, frame, step, rows, columns)
    counts = [memo.take_counts() for cell in step.matrix or ({},) if (memo := job.memo(step, cell))]
    return StepStats(
        rows_in=len(rows),
        rows_out=rows_out,
        absent=frame.tables[step.grain].n - len(rows),
        failed=failed,
        seconds=time.perf_counter() - started,
        computed=sum(computed for computed, _ in counts),
        remembered=sum(remembered for _, remembered in counts),
    )


async def _call(job: Running, step: Step, cell: Mapping[str, Any], columns: Mapping[str, Any], n: int) -> Outcome:
    call, memo = job.bound(step, cell).call(), job.memo(step, cell)
    ports = [port for port in step.signature.ports if port.name in columns]
    arrays = [_arriving(port, columns[port.name]) for port in ports]
    if not step.signature.batched:
        return await (memo.rows(call, arrays, n) if memo else call.rows(arrays, n))
    if values := {place for place, port in enumerate(ports) if port.many == "one"}:
        call = call.sharing(values)
    size = step.batch_max or BATCH
    return await (memo.batches(call, arrays, n, size) if memo else call.batches(arrays, n, size))


def _arriving(port: Port, values: Any) -> Any:
    """A port's values as its operator takes them: a block where it says so, rows one by one, else as they are."""
    if port.many == "one":
        return values if isinstance(values, list) else list(values)
    return tables.block(values) if port.block else values


async def _outcome(job: Running, step: Step, cell: Mapping[str, Any], columns: Mapping[str, Any], n: int) -> Outcome:
    if step.repeat is None:
        return await _call(job, step, cell, columns, n)
    # The step's output is fed back until its condition holds; rows that never satisfy it keep their last output.
    until = job.expression(step.repeat.until)
    current = {port: list(values) for port, values in columns.items()}
    values: list[Any] = [None] * n
    failures: dict[int, Exception] = {}
    todo = list(range(n))
    for _ in range(step.repeat.max):
        if not todo:
            break
        given = {port: [column[row] for row in todo] for port, column in current.items()}
        outcome = await _call(job, step, cell, given, len(todo))
        failures |= {todo[place]: error for place, error in outcome.failures.items()}
        made = [place for place in range(len(todo)) if place not in outcome.failures]
        outputs = output_columns(step, tables.take(outcome.values, made))
        later = []
        for index, place in enumerate(made):
            row = todo[place]
            values[row] = outcome.values[place]
            if not until.evaluate({name: column[index] for name, column in outputs.items()}):
                later.append(row)
                for port, name in step.repeat.feed.items():
                    current[port][row] = outputs[name][index]
        todo = later
    return Outcome(values, failures)


async def _map(job: Running, frame: Frame, step: Step, rows: Sequence[int], columns: dict[str, Any]) -> tuple[int, int]:
    table, n = frame.tables[step.grain], len(rows)
    outcome = await _outcome(job, step, {}, columns, n)
    failed = skip(job, step, ((frame.label(step.grain, rows[row]), e) for row, e in sorted(outcome.failures.items())))
    good: Sequence[int] = range(n)
    if outcome.failures:
        good = [row for row in good if row not in outcome.failures]
    if step.signature.shape == "filter":
        good = [row for row in good if _kept(step, outcome.values[row])]
        made = {port: tables.take(values, good) for port, values in columns.items()}
    else:
        made = output_columns(step, outcome.values if len(good) == n else tables.take(outcome.values, good))
    _add(table, step, made, rows if len(good) == n else [rows[row] for row in good])
    return len(good), failed


def _add(table: Table, step: Step, made: Mapping[str, Any], rows: Sequence[int]) -> None:
    """Add a step's columns, computed for some rows of a table, and its presence."""
    mask = tables.mask_of(rows, table.n)
    for name, values in made.items():
        table.columns[f"{step.name}.{name}"] = Column(tables.spread(values, rows, table.n), mask)
    table.marks[step.name] = mask


def _kept(step: Step, verdict: Any) -> bool:
    if hasattr(verdict, "keep"):
        return bool(verdict.keep)
    raise OperatorError(
        step.name, f"a filter returned {type(verdict).__name__}, not Keep", help="return Keep(True) or Keep(False)"
    )


async def _expand(
    job: Running, frame: Frame, step: Step, rows: Sequence[int], columns: dict[str, Any]
) -> tuple[int, int]:
    """Open a child grain: one row per yield, or per matrix cell, or per yield of each cell; parents stay in order."""
    n, shape = len(rows), step.signature.shape
    cells = step.matrix or ({},)
    outcomes = [await _outcome(job, step, cell, columns, n) for cell in cells]
    broken = sorted((row, cell, error) for cell, each in enumerate(outcomes) for row, error in each.failures.items())
    failed = skip(job, step, ((frame.label(step.grain, rows[row]), error) for row, _, error in broken))
    sources: list[int] = []
    items: list[Any] = []
    keys: list[int] = []
    good: list[int] = []
    for row in range(n):
        for cell, outcome in enumerate(outcomes):
            if row in outcome.failures:
                made: Sequence[Any] = [] if shape == "expand" else [None]
            else:
                made = outcome.values[row] if shape == "expand" else [outcome.values[row]]
                if shape != "filter" or _kept(step, made[0]):
                    good += range(len(items), len(items) + len(made))
            items += made
            sources += [row] * len(made)
            keys += [cell] * len(made)
    table = Table(step.out, len(items), None if step.grain == RUN else [rows[row] for row in sources])
    frame.tables[step.out] = table
    if shape == "filter":
        _add(
            table,
            step,
            {port: tables.take(values, [sources[i] for i in good]) for port, values in columns.items()},
            good,
        )
    else:
        _add(table, step, output_columns(step, items if len(good) == len(items) else [items[i] for i in good]), good)
    _add_cells(table, step, keys)
    expanded = rows if not broken else [row for i, row in enumerate(rows) if any(i not in o.failures for o in outcomes)]
    frame.tables[step.grain].marks[expansion(step.name)] = tables.mask_of(expanded, frame.tables[step.grain].n)
    return len(good), failed


def _add_cells(table: Table, step: Step, keys: Sequence[int]) -> None:
    for option in step.matrix[0] if step.matrix else ():
        table.columns[f"{step.name}.{option}"] = Column([step.matrix[cell][option] for cell in keys])


async def run_collect(job: Running, frame: Frame, step: Step, parts: Sequence[Frame]) -> StepStats:
    """Collect to one row per row of a grain above, and add the columns to `frame`; `parts` hold the rows."""
    started = time.perf_counter()
    at = group_grain(job.graph, step)
    groups, values = select_groups(job.graph, job.expression, frame, step, at)
    opener = expanded_below(job.graph, step)
    mark = frame.mark(at, expansion(opener)) if opener else None
    places = [place for place, group in enumerate(groups) if mark is None or mark[group]]
    rows_in, pieces = _grouped(job, step, parts, at, [groups[place] for place in places])
    made: list[Any] = []
    rows: list[int] = []
    failed: list[tuple[str, Exception]] = []
    cells = step.matrix or ({},)
    for row, place in enumerate(place for place in places for _ in cells):
        cell, group = cells[row % len(cells)], groups[place]
        given = {name: column[place] for name, column in values.items()}
        try:
            made.append(await _fold(job, step, cell, pieces[group], given))
            rows.append(row if step.matrix else group)
        except Exception as error:  # noqa: BLE001 - whatever an operator raises is that group's failure
            raise_if_fatal(error)
            failed.append((frame.label(at, group), error))
    skipped = skip(job, step, failed)
    if step.matrix:
        parents = [groups[place] for place in places for _ in cells]
        frame.tables[step.out] = Table(step.out, len(parents), None if at == RUN else parents)
        _add_cells(frame.tables[step.out], step, [*range(len(cells))] * len(places))
    _add(frame.tables[step.out], step, output_columns(step, made), rows)
    return StepStats(
        rows_in=rows_in,
        rows_out=len(rows),
        absent=sum(part.tables[step.grain].n for part in parts) - rows_in,
        failed=skipped,
        seconds=time.perf_counter() - started,
    )


def _grouped(
    job: Running, step: Step, parts: Sequence[Frame], at: str, groups: Sequence[int]
) -> tuple[int, dict[int, list[tuple[int, dict[str, Any]]]]]:
    """How many items there are, and those of each group."""
    found: dict[int, list[tuple[int, dict[str, Any]]]] = {group: [] for group in groups}
    total = 0
    for part in parts:
        rows, columns = select_items(job.graph, job.expression, part, step)
        total += len(rows)
        if at == RUN:
            for group in groups:
                found[group].append((len(rows), columns))
            continue
        path = part.path(step.grain, at)
        members: dict[int, list[int]] = {group: [] for group in groups}
        for place, row in enumerate(rows):
            group = row if path is None else path[row]
            if group in members:
                members[group].append(place)
        for group, mine in members.items():
            found[group].append((len(mine), {name: tables.take(values, mine) for name, values in columns.items()}))
    return total, found


async def _fold(job: Running, step: Step, cell: Mapping[str, Any], pieces: Pieces, given: Mapping[str, Any]) -> Any:
    """One group to one value: a fold sees its pieces one after another, a Dataset port all of them at once."""
    bound = job.bound(step, cell)
    names = [port.name for port in step.signature.ports if port.name in step.ports]
    if step.signature.form != "fold":
        return await bound.call().one(
            [
                given[name] if name in given else tables.concat([columns[name] for _, columns in pieces])
                for name in names
            ]
        )
    add, finish = bound.fold()
    for n, columns in pieces:
        for start in range(0, n, size := step.batch_max or FOLD):
            await _awaited(
                add(*(given[name] if name in given else columns[name][start : start + size] for name in names))
            )
    return await _awaited(finish(job.new_artifact()) if step.signature.takes_dir else finish())


async def _awaited(value: Any) -> Any:
    return await value if inspect.isawaitable(value) else value


def skip(job: Running, step: Step, failures: Iterable[tuple[str, Exception]]) -> int:
    """Record failed rows, or raise the first when the step does not skip; returns how many failed."""
    before = len(job.failures)
    for row, error in failures:
        message = job.redact(describe(error))
        if step.on_error == "fail":
            raise OperatorError(step.name, message, row, 'mend the input, or set on_error = "skip"') from error
        job.failures.append(RowFailure(step=step.name, row=row, kind=kind_of(error), message=message))
    return len(job.failures) - before
