"""What an operator's return annotation says: the shape of the step and the types of its columns."""

from __future__ import annotations

import types as python_types
from collections import abc
from typing import Any, Union, get_args, get_origin

from sage_core.common.errors import BadSignature
from sage_core.common.operators import Batch, Keep, OperatorInfo, RowError, Vector, Vectors
from sage_core.kernel.dataflow import fields, types
from sage_core.kernel.dataflow.calls import ABSENT, Call, Many, typed, typed_fields
from sage_core.kernel.dataflow.graph import Port, Shape, Type

_SYNC_MANY = (abc.Iterator, abc.Iterable, abc.Generator)
ASYNC_MANY = (abc.AsyncIterator, abc.AsyncIterable, abc.AsyncGenerator)
_UNIONS = (Union, python_types.UnionType)


def read(info: OperatorInfo, call: Call, ports: tuple[Port, ...], given: Many) -> tuple[Shape, dict[str, Type], bool]:
    """Return the shape, the columns, and whether a record names them; raises `BadSignature`."""
    where = f"the return annotation of {call.method}" if call.method else "the return annotation"
    annotation = call.returns
    if annotation is ABSENT:
        raise BadSignature(
            info.name, f"{where} is missing", "write `-> T`, or `-> None` for a step that only has effects"
        )
    origin = get_origin(annotation)
    _check_colour(info, call, origin, where)
    if annotation is type(None):
        return "collect" if given == "dataset" else "sink", {}, False
    if given == "batch":
        item = _batch_item(info, annotation, where)
    elif origin is Batch or annotation in (Batch, Vectors):
        raise BadSignature(
            info.name, f"{where} is a batch but no parameter is", "take a Batch[T], or return one row's value"
        )
    else:
        item = annotation
    if item is Keep:
        if given == "dataset":
            raise BadSignature(
                info.name, "a collect cannot return Keep", "filter the rows before it, in a step of its own"
            )
        if not ports:
            raise BadSignature(info.name, "a filter without ports has nothing to keep", "take the columns it looks at")
        return "filter", {port.name: port.type for port in ports}, False
    if origin in _SYNC_MANY or origin in ASYNC_MANY:
        if given == "dataset":
            raise BadSignature(
                info.name, "a collect cannot return an Iterator", "return list[T] and expand it in a step"
            )
        columns, is_record = _columns(info, where, get_args(annotation)[0])
        return "expand", columns, is_record
    columns, is_record = _columns(info, where, item)
    return "collect" if given == "dataset" else "map", columns, is_record


def _batch_item(info: OperatorInfo, annotation: Any, where: str) -> Any:
    if annotation is Vectors:
        return Vector
    if get_origin(annotation) is not Batch:
        raise BadSignature(
            info.name,
            f"{where} is {types.shown(annotation)} but the rows come as a Batch",
            "return Batch[T], one entry per row in the same order; or take Dataset[T] to fold a group to one row",
        )
    item = get_args(annotation)[0]
    if get_origin(item) in _UNIONS and RowError in get_args(item):
        item = Union[tuple(arg for arg in get_args(item) if arg is not RowError)]  # noqa: UP007 - built at run time
    return item


def _check_colour(info: OperatorInfo, call: Call, origin: Any, where: str) -> None:
    many, async_many = origin in _SYNC_MANY, origin in ASYNC_MANY
    if call.colour == "generator" and not many:
        raise BadSignature(info.name, f"it yields, but {where} is no Iterator", "write `-> Iterator[T]`")
    if call.colour == "async generator" and not async_many:
        raise BadSignature(info.name, f"it yields, but {where} is no AsyncIterator", "write `-> AsyncIterator[T]`")
    if call.colour == "coroutine" and (many or async_many):
        raise BadSignature(
            info.name,
            "an `async def` without `yield` cannot return an iterator",
            "write `async def` with `yield` and `-> AsyncIterator[T]`, or a plain `def`",
        )


def _columns(info: OperatorInfo, where: str, annotation: Any) -> tuple[dict[str, Type], bool]:
    if fields.is_record(annotation):
        if info.returns is not None:
            raise BadSignature(
                info.name,
                f"returns={info.returns!r} names one column, but {types.shown(annotation)} names its own",
                "leave `returns` out",
            )
        found = typed_fields(info.name, where, annotation)
        if not found:
            raise BadSignature(info.name, f"{types.shown(annotation)} has no fields", "return None for a sink")
        return found, True
    type_ = typed(info.name, where, annotation)
    if type_.kind == "record" and info.returns is None:
        raise BadSignature(
            info.name,
            f"{where} is {types.show(type_)}: columns cannot be null all at once",
            "return the record with optional fields, or name one column: returns='…'",
        )
    name = info.returns or "value"
    if not name.isidentifier():
        raise BadSignature(info.name, f"returns={name!r} cannot name a column", "use letters, digits and underscores")
    return {name: type_}, False
