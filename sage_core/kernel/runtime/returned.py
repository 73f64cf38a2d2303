"""From what calls returned to columns: declared names, plain values, vectors as one block."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from typing import Any

from sage_core.common.errors import OperatorError
from sage_core.kernel.dataflow import fields
from sage_core.kernel.dataflow.graph import Step
from sage_core.kernel.runtime.values import has_record, plain


def output_columns(step: Step, values: Any) -> dict[str, Any]:
    """One sequence per declared column, in the declared order; raises `OperatorError` for other keys."""
    declared = step.signature.columns
    if not declared:
        return {}
    if not step.signature.is_record:
        (name,) = declared
        return {name: _typed(step, name, values)}
    columns = _taken_apart(step, tuple(declared), values)
    return {name: _typed(step, name, column) for name, column in zip(declared, columns, strict=True)}


def _taken_apart(step: Step, names: tuple[str, ...], values: Sequence[Any]) -> Sequence[list[Any]]:
    """The rows' fields as columns; rows of one record class are read without a dictionary per row."""
    kinds = set(map(type, values))
    if len(kinds) == 1 and not issubclass(kind := next(iter(kinds)), dict) and fields.is_record(kind):
        _check_keys(step, fields.names(kind))
        return [list(map(operator.attrgetter(name), values)) for name in names]
    rows = [plain(value) for value in values]
    for keys in {tuple(row) if isinstance(row, dict) else type(row).__name__ for row in rows}:
        _check_keys(step, keys)
    return [[row[name] for row in rows] for name in names]


def _check_keys(step: Step, keys: tuple[str, ...] | str) -> None:
    declared = step.signature.columns
    if isinstance(keys, str) or set(keys) != declared.keys():
        got = keys if isinstance(keys, str) else ", ".join(sorted(map(str, keys)))
        raise OperatorError(
            step.name,
            f"returned {got}, declared {', '.join(sorted(declared))}",
            help="the fields of the annotated return type are the step's columns",
        )


def _typed(step: Step, name: str, values: Any) -> Any:
    kind = step.signature.columns[name]
    if kind.kind == "vector" and not kind.optional:
        return _block(step, name, values)
    values = values if isinstance(values, list) else list(values)
    return [plain(value) for value in values] if has_record(kind) else values


def _block(step: Step, name: str, values: Any) -> Any:
    import numpy  # noqa: PLC0415 - only runs with vectors pay for numpy

    try:
        block = numpy.ascontiguousarray(values, dtype=numpy.float32)
    except (TypeError, ValueError) as error:
        raise OperatorError(step.name, f"column {name!r}: not vectors of one dimension ({error})") from None
    if len(block) == 0:
        block = block.reshape(0, 0)
    dim = step.signature.columns[name].dim
    if block.ndim != 2 or (dim and len(block) and block.shape[1] != dim):
        raise OperatorError(
            step.name, f"column {name!r}: expected vectors of dimension {dim or 'd'}, got shape {block.shape[1:]}"
        )
    return block
