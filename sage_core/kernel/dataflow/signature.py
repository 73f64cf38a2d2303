"""From an operator's annotations to its `Signature`: ports, options, columns, and what it does to rows."""

from __future__ import annotations

import types as python_types
from collections.abc import Iterable
from pathlib import PurePath
from typing import Any, Literal, NamedTuple, Union, get_args, get_origin

import msgspec

from sage_core.common.errors import BadSignature, suggest
from sage_core.common.operators import MARK, Batch, Dataset, OperatorInfo, Vector, Vectors
from sage_core.kernel.dataflow import fields, returned, types
from sage_core.kernel.dataflow.calls import ABSENT, Call, Many, Parameter, take_apart, typed, typed_fields
from sage_core.kernel.dataflow.graph import Option, Port, Signature

_UNIONS = (Union, python_types.UnionType)


class _Arrival(NamedTuple):
    """How a port's rows arrive, and the annotation of one of them."""

    many: Many
    item: Any
    block: bool = False
    optional: bool = False


def of(target: object) -> Signature:
    """Read a function or class marked with `operator`; raises `BadSignature` saying what to write."""
    info: OperatorInfo | None = getattr(target, MARK, None)
    if info is None:
        name = getattr(target, "__qualname__", repr(target))
        raise BadSignature(name, "is not marked as an operator", "write @operator('namespace.name') above it")
    signature = _class(info, target) if isinstance(target, type) else _function(info, target)
    _check_names(info, signature)
    return signature


def record_class(target: object) -> type | None:
    """The class whose instances a record port's rows are made as, ``cls(**fields)``; None without a record port."""
    info: OperatorInfo = getattr(target, MARK)
    method = "add" if hasattr(target, "add") else "__call__"
    call = (
        take_apart(info.name, getattr(target, method), method)
        if isinstance(target, type)
        else take_apart(info.name, target)
    )
    found = _record_port(info, call, [(parameter, _arrival(info, call, parameter)) for parameter in call.ports])
    return found[1].item if found else None


# ---------------------------------------------------------------- the three forms


def _function(info: OperatorInfo, target: object) -> Signature:
    if not callable(target):
        raise BadSignature(info.name, f"{target!r} is neither a function nor a class", "mark a `def` or a `class`")
    call = take_apart(info.name, target)
    return _called(info, call, _options(info, call), target)


def _called(info: OperatorInfo, call: Call, options: tuple[Option, ...], target: object) -> Signature:
    ports, record_port = _ports(info, call)
    many = {port.many for port in ports}
    if many >= {"batch", "dataset"}:
        raise BadSignature(
            info.name, "mixes Batch and Dataset parameters", "a collect takes Dataset[T] for all of them"
        )
    given: Many = "dataset" if "dataset" in many else "batch" if "batch" in many else "one"
    shape, columns, is_record = returned.read(info, call, ports, given)
    return Signature(
        operator=info.name,
        shape=shape,
        ports=ports,
        options=options,
        columns=columns,
        is_record=is_record,
        batched=given == "batch",
        is_async=call.is_async or get_origin(call.returns) in returned.ASYNC_MANY,
        wants_context=call.wants_context,
        record_port=record_port,
        pure=info.pure,
        memo=info.memo,
        doc=_doc(target),
    )


def _class(info: OperatorInfo, target: type) -> Signature:
    is_fold = hasattr(target, "add") and hasattr(target, "finish")
    # type itself has a __call__, so the class's own bases are asked.
    calls = any("__call__" in vars(base) for base in target.__mro__)
    if is_fold == calls:
        problem = "has both __call__ and add/finish" if calls else "has neither __call__ nor add and finish"
        raise BadSignature(
            info.name, problem, "write __call__ to work row by row, add and finish to fold a group to one"
        )
    made = _method(info, target, "__init__") if target.__init__ is not object.__init__ else None  # type: ignore[misc]
    if made and made.ports:
        names = ", ".join(port.name for port in made.ports)
        raise BadSignature(
            info.name, f"__init__ takes {names} by position", "its parameters are options: write a `*` before them"
        )
    if made and made.colour != "plain":
        raise BadSignature(info.name, "__init__ is no plain method", "open what needs awaiting in the first call")
    calls_of = [made] if made else []
    if is_fold:
        return _fold(info, target, calls_of)
    call = _method(info, target, "__call__")
    signature = _called(info, call, _options(info, *calls_of, call), target)
    return _with_methods(signature, "callable", [*calls_of, call])


def _fold(info: OperatorInfo, target: type, made: list[Call]) -> Signature:
    add, finish = _method(info, target, "add"), _method(info, target, "finish")
    ports, record_port = _ports(info, add)
    if any(port.many == "dataset" for port in ports) or not any(port.many == "batch" for port in ports):
        raise BadSignature(info.name, "add takes no batch", "write `add(self, rows: Batch[Record]) -> None`")
    if add.returns is not type(None):
        raise BadSignature(info.name, "add returns something", "write `-> None`; finish returns the result")
    if add.options or finish.options:
        names = ", ".join(option.name for option in [*add.options, *finish.options])
        raise BadSignature(
            info.name, f"add and finish cannot have options ({names})", "move them to __init__, after a `*`"
        )
    if len(finish.ports) > 1 or any(getattr(port.annotation, "__name__", "") != "ArtifactDir" for port in finish.ports):
        raise BadSignature(
            info.name, "finish takes something else than a directory", "write `finish(self, out: ArtifactDir)`"
        )
    if (add.colour, finish.colour) not in (("plain", "plain"), ("coroutine", "coroutine")):
        raise BadSignature(
            info.name, "add and finish differ in colour", "write both with `def`, or both with `async def`"
        )
    _, columns, is_record = returned.read(info, finish, (), "dataset")
    # For whoever wires it, a fold takes the whole group; that add sees it in pieces is the executor's business.
    group = tuple(msgspec.structs.replace(port, many="dataset") if port.many == "batch" else port for port in ports)
    signature = Signature(
        operator=info.name,
        shape="collect",
        ports=group,
        options=_options(info, *made),
        columns=columns,
        is_record=is_record,
        is_async=add.is_async,
        takes_dir=bool(finish.ports),
        record_port=record_port,
        pure=info.pure,
        memo=info.memo,
        doc=_doc(target),
    )
    return _with_methods(signature, "fold", [*made, add, finish])


def _method(info: OperatorInfo, target: type, name: str) -> Call:
    function = getattr(target, name)
    return take_apart(info.name, function, name)


def _with_methods(signature: Signature, form: Literal["callable", "fold"], calls: list[Call]) -> Signature:
    context_in = tuple(call.method for call in calls if call.wants_context)
    return msgspec.structs.replace(
        signature,
        form=form,
        wants_context=bool(context_in),
        context_in=context_in,
        init_options=tuple(option.name for call in calls if call.method == "__init__" for option in call.options),
    )


# ---------------------------------------------------------------- ports


def _ports(info: OperatorInfo, call: Call) -> tuple[tuple[Port, ...], str]:
    arrivals = [(parameter, _arrival(info, call, parameter)) for parameter in call.ports]
    record = _record_port(info, call, arrivals)
    ports = [
        port
        for parameter, arrival in arrivals
        for port in (
            _fields(info, call, parameter, arrival)
            if record and record[0] is parameter
            else [_port(info, call, parameter, arrival)]
        )
    ]
    names = [port.name for port in ports]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise BadSignature(info.name, f"two ports are named {twice[0]!r}", "rename the parameter or the record's field")
    return tuple(ports), record[0].name if record else ""


def _arrival(info: OperatorInfo, call: Call, parameter: Parameter) -> _Arrival:
    annotation, optional = parameter.annotation, False
    if get_origin(annotation) in _UNIONS:
        members = [arg for arg in get_args(annotation) if arg is not type(None)]
        if len(members) == 1 and (members[0] is Vectors or get_origin(members[0]) in (Batch, Dataset)):
            annotation, optional = members[0], True
            if parameter.default is ABSENT:
                raise BadSignature(
                    info.name,
                    f"{call.named(parameter.name)} may be None but has no default",
                    f"write `{parameter.name}: {types.shown(annotation)} | None = None`",
                )
    if annotation is Vectors:
        return _Arrival("batch", Vector, block=True, optional=optional)
    if annotation is Batch or annotation is Dataset:
        raise BadSignature(
            info.name,
            f"{call.named(parameter.name)} does not say what it holds",
            f"write `{annotation.__name__}[T]`, for example `{annotation.__name__}[str]`",
        )
    origin = get_origin(annotation)
    if origin is Batch or origin is Dataset:
        return _Arrival("batch" if origin is Batch else "dataset", get_args(annotation)[0], optional=optional)
    return _Arrival("one", annotation)


def _record_port(
    info: OperatorInfo, call: Call, arrivals: list[tuple[Parameter, _Arrival]]
) -> tuple[Parameter, _Arrival] | None:
    several = [entry for entry in arrivals if entry[1].many != "one"]
    return several[0] if len(several) == 1 and fields.is_record(several[0][1].item) else None


def _fields(info: OperatorInfo, call: Call, parameter: Parameter, arrival: _Arrival) -> list[Port]:
    found = typed_fields(info.name, call.named(parameter.name), arrival.item)
    given = fields.defaulted(arrival.item)
    return [
        Port(
            name=name,
            type=type_,
            many=arrival.many,
            required=name not in given,
            is_path=type_.name == "path" or name in info.paths,
        )
        for name, type_ in found.items()
    ]


def _port(info: OperatorInfo, call: Call, parameter: Parameter, arrival: _Arrival) -> Port:
    type_ = typed(info.name, call.named(parameter.name), arrival.item)
    return Port(
        name=parameter.name,
        type=type_,
        many=arrival.many,
        block=arrival.block,
        required=parameter.default is ABSENT,
        is_path=(type_.kind == "str" and type_.name == "path") or parameter.name in info.paths,
    )


# ---------------------------------------------------------------- options


def _options(info: OperatorInfo, *calls: Call) -> tuple[Option, ...]:
    found: dict[str, Option] = {}
    ports = {port.name for call in calls if call.method != "__init__" for port in call.ports}
    for call in calls:
        for parameter in call.options:
            name = parameter.name
            if name in found or name in ports:
                other = "an option of __init__" if name in found else "a port"
                raise BadSignature(info.name, f"{call.named(name)} is {other} too", "rename one of the two")
            found[name] = _option(info, call, parameter)
    return tuple(found.values())


def _option(info: OperatorInfo, call: Call, parameter: Parameter) -> Option:
    name, where = parameter.name, call.named(parameter.name)
    origin = get_origin(parameter.annotation)
    if origin in (Batch, Dataset) or parameter.annotation in (Batch, Dataset, Vectors):
        raise BadSignature(
            info.name, f"{where} holds rows but is an option", "rows come through ports: write it before the `*`"
        )
    type_ = typed(info.name, where, parameter.annotation)
    if type_.kind in ("bytes", "vector", "artifact", "none"):
        raise BadSignature(
            info.name, f"{where}: no TOML value is a {types.show(type_)}", "make it a port: write it before the `*`"
        )
    default = None if parameter.default is ABSENT else parameter.default
    if parameter.default is not ABSENT:
        if problem := types.value_problem(default, type_):
            raise BadSignature(
                info.name, f"{where}: the default does not fit: {problem}", "mend the type or the default"
            )
        default = str(default) if isinstance(default, PurePath) else msgspec.to_builtins(default)
        if isinstance(default, tuple):
            default = list(default)
    return Option(
        name=name,
        type=type_,
        required=parameter.default is ABSENT,
        default=default,
        is_path=(type_.kind == "str" and type_.name == "path") or name in info.paths,
        is_model=name in info.models,
    )


def _check_names(info: OperatorInfo, signature: Signature) -> None:
    options = [option.name for option in signature.options]
    ports = [port.name for port in signature.ports]
    if clash := sorted(set(options) & set(ports)):
        raise BadSignature(info.name, f"{clash[0]!r} is both a port and an option", "rename one of the two")
    lists: tuple[tuple[str, Iterable[str], list[str]], ...] = (
        ("models", info.models, options),
        ("paths", info.paths, options + ports),
    )
    for table, names, known in lists:
        for name in names:
            if name not in known:
                raise BadSignature(
                    info.name,
                    f"{table}= names {name!r}, which is no {'option' if table == 'models' else 'option or port'}",
                    f"known: {', '.join(known) or 'none'}.{suggest(name, known)}",
                )


def _doc(target: object) -> str:
    return (getattr(target, "__doc__", None) or "").strip().partition("\n")[0]
