"""What a step reads, seen from the rows of a grain: its ports' values, and on which rows it runs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from sage_core.common.errors import BadValue, OperatorError
from sage_core.kernel.dataflow.expressions import Expression
from sage_core.kernel.dataflow.graph import Binding, Graph, Ref, Step
from sage_core.kernel.runtime import table as tables
from sage_core.kernel.runtime.table import Column, Frame, Mask

#: Compiles a condition, once.
Compile = Callable[[str], Expression]


def select(graph: Graph, compiled: Compile, frame: Frame, step: Step) -> tuple[Sequence[int], dict[str, Any]]:
    """Rows the step runs on, and its port values on just those rows."""
    return _selected(graph, compiled, frame, step, step.grain, step.ports, step.when)


def select_items(graph: Graph, compiled: Compile, frame: Frame, step: Step) -> tuple[Sequence[int], dict[str, Any]]:
    """Rows that a collect gathers, and their values: all that its Dataset ports read is present there."""
    many = {port.name for port in step.signature.ports if port.many == "dataset"}
    ports = {name: binding for name, binding in step.ports.items() if name in many}
    return _selected(graph, compiled, frame, step, step.grain, ports, "")


def select_groups(
    graph: Graph, compiled: Compile, frame: Frame, step: Step, grain: str
) -> tuple[Sequence[int], dict[str, Any]]:
    """Rows of `grain` that a collect may run for, and the values of its ports that take one value a group."""
    many = {port.name for port in step.signature.ports if port.many == "dataset"}
    ports = {name: binding for name, binding in step.ports.items() if name not in many}
    return _selected(graph, compiled, frame, step, grain, ports, step.when, rows=())


def _selected(
    graph: Graph,
    compiled: Compile,
    frame: Frame,
    step: Step,
    grain: str,
    ports: Mapping[str, Binding],
    when: str,
    rows: Sequence[str] | None = None,
) -> tuple[Sequence[int], dict[str, Any]]:
    n = frame.tables[grain].n
    mask: Mask = None
    found: dict[str, Column] = {}
    for port, binding in ports.items():
        found[port] = bound_column(graph, frame, grain, binding)
        mask = tables.both(mask, found[port].present)
    for other in step.rows if rows is None else rows:
        mask = tables.both(mask, frame.mark(grain, other))
    if when:
        read = [_ref_column(graph, frame, grain, ref) for ref in step.when_refs]
        for column in read:
            mask = tables.both(mask, column.present)
        mask = _where(compiled(when), [column.values for column in read], tables.rows_of(mask, n), n, step.name)
    chosen = tables.rows_of(mask, n)
    if len(chosen) == n:
        return range(n), {port: column.values for port, column in found.items()}
    return chosen, {port: tables.take(column.values, chosen) for port, column in found.items()}


def bound_column(graph: Graph, frame: Frame, grain: str, binding: Binding) -> Column:
    """The column a binding names, seen from `grain`: a literal, a reference, or the first present of several."""
    n = frame.tables[grain].n
    if not binding.refs:
        return Column([binding.value] * n)
    return tables.merge([_ref_column(graph, frame, grain, ref) for ref in binding.refs], n)


def _ref_column(graph: Graph, frame: Frame, grain: str, ref: Ref) -> Column:
    column = frame.column(grain, f"{ref.step}.{ref.column}") if ref.column else _record(graph, frame, grain, ref.step)
    present = column.present
    if ref.fields:
        values = [
            _field(value, ref.fields) if present is None or present[row] else None
            for row, value in enumerate(column.values)
        ]
        column = Column(values, present)
    if ref.optional and present is not None:
        return Column([value if here else None for value, here in zip(column.values, present, strict=True)])
    return column


def _record(graph: Graph, frame: Frame, grain: str, step: str) -> Column:
    """All columns of a step as one column of dictionaries; they share their presence, but for a matrix's own."""
    names = tuple(graph.steps[step].columns)
    columns = [frame.column(grain, f"{step}.{name}") for name in names]
    rows = zip(*(column.values for column in columns), strict=True)
    present: Mask = None
    for column in columns:
        present = tables.both(present, column.present)
    return Column([dict(zip(names, row, strict=True)) for row in rows], present)


def _field(value: Any, names: Sequence[str]) -> Any:
    for name in names:
        value = value.get(name) if isinstance(value, Mapping) else None
    return value


def _where(condition: Expression, read: Sequence[Any], rows: Sequence[int], n: int, step: str) -> list[bool]:
    """Where a condition holds, of the rows on which all that it reads is present."""
    truth = [False] * n
    for row in rows:
        try:
            truth[row] = bool(
                condition.evaluate({name: values[row] for name, values in zip(condition.names, read, strict=True)})
            )
        except BadValue as error:
            raise OperatorError(step, f"its condition {error.problem}", help=error.help) from None
    return truth
