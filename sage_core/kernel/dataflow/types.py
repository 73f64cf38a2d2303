"""The type language of ports, options and columns: from annotations, compared, shown, and held against values."""

from __future__ import annotations

import sys
import types as python_types
import typing
from collections.abc import Mapping, MutableMapping, MutableSequence, Sequence
from enum import Enum
from pathlib import Path, PurePath
from typing import Annotated, Any, Literal, NotRequired, Required, Union, get_args, get_origin

import msgspec

from sage_core.common.errors import UnsupportedType
from sage_core.common.operators import Artifact, Batch, Dataset, Keep, RowError, Vector, Vectors
from sage_core.kernel.dataflow import fields
from sage_core.kernel.dataflow.graph import Type

_PLAIN: dict[object, Type] = {
    Any: Type(kind="any"),
    None: Type(kind="none"),
    type(None): Type(kind="none"),
    bool: Type(kind="bool"),
    int: Type(kind="int"),
    float: Type(kind="float"),
    str: Type(kind="str"),
    bytes: Type(kind="bytes"),
    Path: Type(kind="str", name="path"),
    PurePath: Type(kind="str", name="path"),
    Vector: Type(kind="vector"),
    Vectors: Type(kind="list", item=Type(kind="vector")),
    list: Type(kind="list", item=Type(kind="any")),
    Sequence: Type(kind="list", item=Type(kind="any")),
    dict: Type(kind="dict", item=Type(kind="any")),
    Mapping: Type(kind="dict", item=Type(kind="any")),
}
_LISTS = (list, Sequence, MutableSequence)
_DICTS = (dict, Mapping, MutableMapping)
#: What `get_origin` says of a union, however it is spelt.
UNIONS = (Union, python_types.UnionType)

_INSTEAD = {
    tuple: "write list[T], or a NamedTuple whose fields have names",
    set: "write list[T]",
    frozenset: "write list[T]",
    object: "write Any",
    complex: "write a record of two floats",
    Keep: "Keep is a whole return annotation: `-> Keep` or `-> Batch[Keep]`",
    RowError: "RowError appears only in a return annotation: `-> Batch[T | RowError]`",
    Batch: "Batch[T] is a whole parameter or return annotation, not a part of a type",
    Dataset: "Dataset[T] is a whole parameter annotation, not a part of a type",
}
_KNOWN = "use bool, int, float, str, bytes, Any, Literal, list, dict, T | None, Vector, a record, an Artifact, or Path"


def of(annotation: object, _within: tuple[object, ...] = ()) -> Type:
    """Read an evaluated annotation; raises `UnsupportedType` saying what to write instead."""
    try:
        plain = _PLAIN.get(annotation)
    except TypeError:  # unhashable metadata inside Annotated
        plain = None
    if plain is not None:
        return plain
    origin = get_origin(annotation)
    if origin is not None:
        return _generic(annotation, origin, get_args(annotation), _within)
    if fields.is_record(annotation):
        if annotation in _within:
            raise UnsupportedType(shown(annotation), "a record cannot contain itself", "write dict[str, Any] there")
        return Type(kind="record", name=shown(annotation), fields=fields_of(annotation, (*_within, annotation)))
    if isinstance(annotation, type) and issubclass(annotation, Artifact):
        return Type(kind="artifact", name=annotation.__name__, target=_target(annotation))
    if sys.version_info >= (3, 12) and isinstance(annotation, typing.TypeAliasType):
        return of(annotation.__value__, _within)
    raise UnsupportedType(shown(annotation), "is no type that a column can have", _instead(annotation))


def _generic(annotation: object, origin: object, args: tuple[Any, ...], within: tuple[object, ...]) -> Type:
    if origin is Annotated:
        if args[0] is not Vector:
            return of(args[0], within)
        if type(args[1]) is not int or args[1] <= 0:
            raise UnsupportedType(
                f"Vector[{args[1]!r}]", "the dimension must be a positive integer", "write Vector[384]"
            )
        return Type(kind="vector", dim=args[1])
    if origin in UNIONS:
        members = [arg for arg in args if arg is not type(None)]
        if len(members) == len(args) or len(members) != 1:
            raise UnsupportedType(
                shown(annotation), "only `T | None` is a union that a column can have", "choose one type, or write Any"
            )
        return optional(of(members[0], within))
    if origin is Literal:
        values = [arg for arg in args if arg is not None]
        if not all(isinstance(value, str | int) and not isinstance(value, Enum) for value in values) or not values:
            raise UnsupportedType(shown(annotation), "a literal holds strings, integers or booleans", "write them out")
        return Type(kind="literal", values=tuple(values), optional=len(values) < len(args))
    if origin in _LISTS:
        return Type(kind="list", item=of(args[0], within))
    if origin in _DICTS:
        if args[0] not in (str, Any):
            raise UnsupportedType(shown(annotation), "keys must be strings", f"write dict[str, {shown(args[1])}]")
        return Type(kind="dict", item=of(args[1], within))
    if origin is Required:
        return of(args[0], within)
    if origin is NotRequired:
        raise UnsupportedType(shown(annotation), "every field of a record is there", f"write {shown(args[0])} | None")
    raise UnsupportedType(shown(annotation), "is no type that a column can have", _instead(origin))


def _instead(annotation: object) -> str:
    if isinstance(annotation, type) and issubclass(annotation, Enum):
        return f"write Literal[{', '.join(repr(member.value) for member in annotation)}]"
    return next((advice for kind, advice in _INSTEAD.items() if annotation is kind), _KNOWN)


def optional(type_: Type) -> Type:
    """The same type, or null."""
    return type_ if type_.optional or type_.kind == "none" else msgspec.structs.replace(type_, optional=True)


# ---------------------------------------------------------------- records


def fields_of(record: Any, _within: tuple[object, ...] = ()) -> dict[str, Type]:
    """Field name → type of a record class; raises `UnsupportedType` naming record and field."""
    where = record.__name__
    try:
        hints = typing.get_type_hints(record, include_extras=True)
    except NameError as error:
        help = f"import or define {error.name} at the top of {record.__module__}, outside `if TYPE_CHECKING:`"
        problem = f"the name {error.name!r} in its fields is unknown at run time"
        raise UnsupportedType(where, problem, help) from error
    found = {}
    for name in fields.names(record):
        try:
            if typing.is_typeddict(record) and name in record.__optional_keys__:
                raise UnsupportedType(
                    f"NotRequired[{shown(hints[name])}]", "every field of a record is there", "write T | None"
                )
            found[name] = of(hints[name], _within or (record,))
        except UnsupportedType as error:
            annotation, problem, help = error.args
            raise UnsupportedType(f"{where}.{name}: {annotation}", problem, help) from None
    return found


# ---------------------------------------------------------------- comparing


def assignable(source: Type, target: Type) -> bool:
    """Whether a column of type `source` may feed a port of type `target`; what Any hides is checked at run time."""
    if "any" in (source.kind, target.kind):
        return True
    if source.optional and not target.optional:
        return False
    if source.kind == "none":
        return target.optional or target.kind == "none"
    if source.kind == "literal":
        return all(not value_problem(value, target) for value in source.values)
    if source.kind == "int" and target.kind == "float":
        return True
    if source.kind == "record" and target.kind == "dict":
        return all(assignable(field, _item(target)) for field in source.fields.values())
    if source.kind != target.kind:
        return False
    if source.kind in ("list", "dict"):
        return assignable(_item(source), _item(target))
    if source.kind == "record":
        return all(
            name in source.fields and assignable(source.fields[name], field) for name, field in target.fields.items()
        )
    if source.kind == "vector":
        return 0 in (source.dim, target.dim) or source.dim == target.dim
    return source.kind != "artifact" or _is_kind(source.target, target.target)


def _item(type_: Type) -> Type:
    return type_.item or _PLAIN[Any]


def _is_kind(source: str, target: str) -> bool:
    if source == target or target == _ARTIFACT:
        return True
    classes = (_class(source), _class(target))
    return all(classes) and issubclass(*typing.cast("tuple[type, type]", classes))


def _target(found: type) -> str:
    return f"{found.__module__}:{found.__qualname__}"


_ARTIFACT = _target(Artifact)


def _class(target: str) -> type | None:
    # Operators that name a class have imported its module, so nothing is imported here.
    module, _, path = target.partition(":")
    found: object = sys.modules.get(module)
    for part in path.split("."):
        found = getattr(found, part, None)
    return found if isinstance(found, type) else None


# ---------------------------------------------------------------- showing


def show(type_: Type) -> str:
    """The type as a user writes it: ``list[str]``, ``Vector[384]``, ``str | None``."""
    name = _shown(type_)
    return f"{name} | None" if type_.optional and type_.kind != "any" else name


def _shown(type_: Type) -> str:
    match type_.kind:
        case "any" | "none":
            return type_.kind.capitalize()
        case "vector":
            return f"Vector[{type_.dim}]" if type_.dim else "Vector"
        case "list":
            return f"list[{show(_item(type_))}]"
        case "dict":
            return f"dict[str, {show(_item(type_))}]"
        case "literal":
            return f"Literal[{', '.join(map(repr, type_.values))}]"
        case _:
            return type_.name or type_.kind


def shown(annotation: object) -> str:
    """An annotation as source text, without module names."""
    if isinstance(annotation, type) and get_origin(annotation) is None:
        return "None" if annotation is type(None) else annotation.__name__
    origin, args = get_origin(annotation), get_args(annotation)
    if origin in UNIONS:
        return " | ".join(shown(arg) for arg in args)
    if origin is Literal:
        return f"Literal[{', '.join(map(repr, args))}]"
    if isinstance(origin, type) and args:
        return f"{origin.__name__}[{', '.join(shown(arg) for arg in args)}]"
    return repr(annotation).replace("typing.", "")


# ---------------------------------------------------------------- values


def value_problem(value: object, type_: Type) -> str:
    """What is wrong with `value` as a `type_`: ``expected int, got 'abc'``; empty when it fits."""
    if type_.kind == "any" or (value is None and (type_.optional or type_.kind == "none")):
        return ""
    match type_.kind:
        case "bool" | "bytes" | "str" | "int" | "float":
            allowed: tuple[type, ...] = (PurePath, str) if type_.name == "path" else _VALUES[type_.kind]
            fits = isinstance(value, allowed) and (type_.kind == "bool" or not isinstance(value, bool))
        case "literal":
            fits = any(value == one and type(value) is type(one) for one in type_.values)
        case "vector":
            fits = _is_array(value, 1, type_.dim)
        case "list":
            return _list_problem(value, type_)
        case "dict" | "record":
            return _fields_problem(value, type_)
        case "artifact":
            fits = isinstance(value, Artifact) and any(_target(base) == type_.target for base in type(value).__mro__)
        case _:
            fits = False
    return "" if fits else _expected(type_, value)


_VALUES: Mapping[str, tuple[type, ...]] = {
    "bool": (bool,), "int": (int,), "float": (int, float), "str": (str,), "bytes": (bytes,),
}  # fmt: skip


def _is_array(value: object, axes: int, dim: int) -> bool:
    # Looked at from outside: numpy need not be imported to know that something is not an array.
    shape = getattr(value, "shape", None)
    if not isinstance(shape, tuple) or len(shape) != axes or str(getattr(value, "dtype", "")) != "float32":
        return False
    return dim in (0, shape[-1])


def _list_problem(value: object, type_: Type) -> str:
    item = _item(type_)
    if item.kind == "vector" and _is_array(value, 2, item.dim):
        return ""
    if not isinstance(value, list | tuple):
        return _expected(type_, value)
    if item.kind == "any":
        return ""
    problems = ((place, value_problem(entry, item)) for place, entry in enumerate(value))
    return next((f"item {place}: {problem}" for place, problem in problems if problem), "")


def _fields_problem(value: object, type_: Type) -> str:
    if type_.kind == "dict":
        if not isinstance(value, Mapping) or not all(isinstance(key, str) for key in value):
            return _expected(type_, value)
        entries = {key: (entry, _item(type_)) for key, entry in value.items()}
    else:
        found = value if isinstance(value, Mapping) else fields.values(value)
        if found is None:
            return _expected(type_, value)
        missing = [name for name in type_.fields if name not in found]
        extra = sorted(str(name) for name in found if name not in type_.fields)
        if missing or extra:
            parts = [f"{word} {', '.join(names)}" for word, names in (("without", missing), ("with", extra)) if names]
            return f"expected {show(type_)} with fields {', '.join(type_.fields)}; got one {' and '.join(parts)}"
        entries = {name: (found[name], field) for name, field in type_.fields.items()}
    problems = ((name, value_problem(entry, field)) for name, (entry, field) in entries.items())
    return next((f"field {name!r}: {problem}" for name, problem in problems if problem), "")


def _expected(type_: Type, value: object) -> str:
    shape, dtype = getattr(value, "shape", None), getattr(value, "dtype", None)
    got = f"a {dtype} array of shape {shape}" if isinstance(shape, tuple) and shape else repr(value)
    return f"expected {show(type_)}, got {got if len(got) <= 80 else got[:77] + '...'}"
