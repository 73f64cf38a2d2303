"""Record classes seen from outside: dataclass, TypedDict, msgspec Struct and NamedTuple, by their named fields."""

from __future__ import annotations

import dataclasses
import typing
from typing import Any

import msgspec

from sage_core.common.operators import Keep, RowError


def is_record(annotation: object) -> bool:
    """Whether it is a class with named, typed fields."""
    if not isinstance(annotation, type) or annotation in (Keep, RowError):
        return False
    # TypedDict first: as the second argument of issubclass it raises.
    if typing.is_typeddict(annotation):
        return True
    return (
        dataclasses.is_dataclass(annotation)
        or isinstance(annotation, msgspec.StructMeta)
        or (issubclass(annotation, tuple) and hasattr(annotation, "_field_defaults"))
    )


def names(record: Any) -> tuple[str, ...]:
    """Names of a record class's fields, in order."""
    if typing.is_typeddict(record):
        return tuple(record.__annotations__)
    if dataclasses.is_dataclass(record):
        return tuple(field.name for field in dataclasses.fields(record))
    return tuple(record.__struct_fields__ if isinstance(record, msgspec.StructMeta) else record._fields)


def defaulted(record: Any) -> frozenset[str]:
    """Names of the fields that may be left out when a record is made."""
    if typing.is_typeddict(record):
        return frozenset()
    if dataclasses.is_dataclass(record):
        missing = dataclasses.MISSING
        return frozenset(
            field.name
            for field in dataclasses.fields(record)
            if field.default is not missing or field.default_factory is not missing
        )
    if isinstance(record, msgspec.StructMeta):
        # Defaults belong to the last fields; a keyword-only field without one holds NODEFAULT.
        last = record.__struct_fields__[len(record.__struct_fields__) - len(record.__struct_defaults__) :]
        pairs = zip(last, record.__struct_defaults__, strict=True)
        return frozenset(name for name, default in pairs if default is not msgspec.NODEFAULT)
    return frozenset(record._field_defaults)


def values(record: object) -> dict[str, object] | None:
    """Field name → value of a record instance that is no dict; None for anything else."""
    if not is_record(type(record)):
        return None
    return {name: getattr(record, name) for name in names(type(record))}
