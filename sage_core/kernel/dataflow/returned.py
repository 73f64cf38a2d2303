"""What an operator's return annotation says: the shape of the step and the types of its columns."""

from __future__ import annotations

from collections import abc
from typing import Any, Union, get_args, get_origin

from sage_core.common.operators import Batch, Keep, OperatorInfo, RowError, Vector, Vectors
from sage_core.kernel.dataflow import fields, types
from sage_core.kernel.dataflow.calls import ABSENT, Call, Many
from sage_core.kernel.dataflow.graph import Port, Shape, Type

_SYNC_MANY = (abc.Iterator, abc.Iterable, abc.Generator)
ASYNC_MANY = (abc.AsyncIterator, abc.AsyncIterable, abc.AsyncGenerator)


def read(info: OperatorInfo, call: Call, ports: tuple[Port, ...], given: Many) -> tuple[Shape, dict[str, Type], bool]:
    """Return the shape, the columns, and whether a record names them; raises `BadSignature`."""
    where, annotation = f"the {call.named('return')}", call.returns
    origin = get_origin(annotation)
    if annotation is ABSENT:
        raise call.bad(f"{where} is missing", "write `-> T`, or `-> None` for a step that only has effects")
    _check_colour(call, origin, where)
    if annotation is type(None):
        return "collect" if given == "dataset" else "sink", {}, False
    item = _batch_item(call, annotation, where) if given == "batch" else annotation
    if given != "batch" and (origin is Batch or annotation in (Batch, Vectors)):
        raise call.bad(f"{where} is a batch but no parameter is", "take a Batch[T], or return one row's value")
    if item is Keep:
        if given == "dataset":
            raise call.bad("a collect cannot return Keep", "filter the rows before it, in a step of its own")
        if not ports:
            raise call.bad("a filter without ports has nothing to keep", "take the columns it looks at")
        return "filter", {port.name: port.type for port in ports}, False
    if origin in (*_SYNC_MANY, *ASYNC_MANY):
        if given == "dataset":
            raise call.bad("a collect cannot return an Iterator", "return list[T] and expand it in a step")
        return "expand", *_columns(info, call, where, get_args(annotation)[0])
    return "collect" if given == "dataset" else "map", *_columns(info, call, where, item)


def _batch_item(call: Call, annotation: Any, where: str) -> Any:
    if annotation is Vectors:
        return Vector
    if get_origin(annotation) is not Batch:
        raise call.bad(
            f"{where} is {types.shown(annotation)} but the rows come as a Batch",
            "return Batch[T], one entry per row in the same order; or take Dataset[T] to fold a group to one row",
        )
    item = get_args(annotation)[0]
    if get_origin(item) in types.UNIONS and RowError in get_args(item):
        item = Union[tuple(arg for arg in get_args(item) if arg is not RowError)]  # noqa: UP007 - built at run time
    return item


def _check_colour(call: Call, origin: Any, where: str) -> None:
    many, async_many = origin in _SYNC_MANY, origin in ASYNC_MANY
    if call.colour == "generator" and not many:
        raise call.bad(f"it yields, but {where} is no Iterator", "write `-> Iterator[T]`")
    if call.colour == "async generator" and not async_many:
        raise call.bad(f"it yields, but {where} is no AsyncIterator", "write `-> AsyncIterator[T]`")
    if call.colour == "coroutine" and (many or async_many):
        raise call.bad(
            "an `async def` without `yield` cannot return an iterator",
            "write `async def` with `yield` and `-> AsyncIterator[T]`, or a plain `def`",
        )


def _columns(info: OperatorInfo, call: Call, where: str, annotation: Any) -> tuple[dict[str, Type], bool]:
    shown = types.shown(annotation)
    if fields.is_record(annotation):
        if info.returns is not None:
            raise call.bad(
                f"returns={info.returns!r} names one column, but {shown} names its own", "leave `returns` out"
            )
        found = call.read(types.fields_of, where, annotation)
        if not found:
            raise call.bad(f"{shown} has no fields", "return None for a sink")
        return found, True
    type_ = call.read(types.of, where, annotation)
    if type_.kind == "record" and info.returns is None:
        raise call.bad(
            f"{where} is {types.show(type_)}: columns cannot be null all at once",
            "return the record with optional fields, or name one column: returns='…'",
        )
    name = info.returns or "value"
    if not name.isidentifier():
        raise call.bad(f"returns={name!r} cannot name a column", "use letters, digits and underscores")
    return {name: type_}, False
