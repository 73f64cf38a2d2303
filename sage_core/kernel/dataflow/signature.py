"""From an operator's annotations to its `Signature`: ports, options, columns, and what it does to rows."""

from __future__ import annotations

import inspect
import os
from typing import Any, NamedTuple, get_args, get_origin

import msgspec

from sage_core.common.errors import BadSignature, suggest
from sage_core.common.operators import MARK, Batch, Dataset, OperatorInfo, Vector, Vectors
from sage_core.kernel.dataflow import fields, returned, types
from sage_core.kernel.dataflow.calls import ABSENT, Call, Many, take_apart
from sage_core.kernel.dataflow.graph import Option, Port, Signature, Type


class _Arrival(NamedTuple):
    """A port's parameter, how its rows arrive, and the annotation of one of them."""

    parameter: inspect.Parameter
    many: Many
    item: Any
    block: bool = False


def of(target: object) -> Signature:
    """Read a function or class marked with `operator`; raises `BadSignature` saying what to write."""
    info: OperatorInfo | None = getattr(target, MARK, None)
    if info is None:
        name = getattr(target, "__qualname__", repr(target))
        raise BadSignature(name, "is not marked as an operator", "write @operator('namespace.name') above it")
    if isinstance(target, type):
        signature = _class(info, target)
    elif callable(target):
        call = take_apart(info.name, target)
        signature = _called(info, call, _options(info, call))
    else:
        raise BadSignature(info.name, f"{target!r} is neither a function nor a class", "mark a `def` or a `class`")
    _check_names(info, signature)
    doc = (getattr(target, "__doc__", None) or "").strip().partition("\n")[0]
    return msgspec.structs.replace(signature, pure=info.pure, memo=info.memo, streamed=info.streamed, doc=doc)


def record_class(target: object) -> type | None:
    """The class whose instances a record port's rows are made as, ``cls(**fields)``; None without a record port."""
    info: OperatorInfo = getattr(target, MARK)
    method = ("add" if hasattr(target, "add") else "__call__") if isinstance(target, type) else ""
    call = take_apart(info.name, getattr(target, method) if method else target, method)
    found = _record_port([_arrival(call, parameter) for parameter in call.ports])
    return found.item if found else None


# ---------------------------------------------------------------- the three forms


def _called(info: OperatorInfo, call: Call, options: tuple[Option, ...]) -> Signature:
    ports, record_port = _ports(info, call)
    many = {port.many for port in ports}
    if many >= {"batch", "dataset"}:
        raise call.bad("mixes Batch and Dataset parameters", "a collect takes Dataset[T] for all of them")
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
    )


def _class(info: OperatorInfo, target: type) -> Signature:
    is_fold = hasattr(target, "add") and hasattr(target, "finish")
    # type itself has a __call__, so the class's own bases are asked.
    calls = any("__call__" in vars(base) for base in target.__mro__)
    if is_fold == calls:
        problem = "has both __call__ and add/finish" if calls else "has neither __call__ nor add and finish"
        help = "write __call__ to work row by row, add and finish to fold a group to one"
        raise BadSignature(info.name, problem, help)
    methods: list[Call] = []
    if target.__init__ is not object.__init__:  # type: ignore[misc]
        made = take_apart(info.name, target.__init__, "__init__")  # type: ignore[misc]
        if made.ports:
            names = ", ".join(port.name for port in made.ports)
            raise made.bad(f"__init__ takes {names} by position", "its parameters are options: write a `*` before them")
        if made.colour != "plain":
            raise made.bad("__init__ is no plain method", "open what needs awaiting in the first call")
        methods.append(made)
    init_options = tuple(option.name for made in methods for option in made.options)
    methods += [take_apart(info.name, getattr(target, name), name) for name in _METHODS[is_fold]]
    signature = _fold(info, methods) if is_fold else _called(info, methods[-1], _options(info, *methods))
    context_in = tuple(call.method for call in methods if call.wants_context)
    return msgspec.structs.replace(
        signature,
        form="fold" if is_fold else "callable",
        wants_context=bool(context_in),
        context_in=context_in,
        init_options=init_options,
    )


_METHODS = {True: ("add", "finish"), False: ("__call__",)}


def _fold(info: OperatorInfo, methods: list[Call]) -> Signature:
    *made, add, finish = methods
    ports, record_port = _ports(info, add)
    if any(port.many == "dataset" for port in ports) or not any(port.many == "batch" for port in ports):
        raise add.bad("add takes no batch", "write `add(self, rows: Batch[Record]) -> None`")
    if add.returns is not type(None):
        raise add.bad("add returns something", "write `-> None`; finish returns the result")
    if names := ", ".join(option.name for option in [*add.options, *finish.options]):
        raise add.bad(f"add and finish cannot have options ({names})", "move them to __init__, after a `*`")
    if len(finish.ports) > 1 or any(getattr(port.annotation, "__name__", "") != "ArtifactDir" for port in finish.ports):
        raise add.bad("finish takes something else than a directory", "write `finish(self, out: ArtifactDir)`")
    if (add.colour, finish.colour) not in (("plain", "plain"), ("coroutine", "coroutine")):
        raise add.bad("add and finish differ in colour", "write both with `def`, or both with `async def`")
    _, columns, is_record = returned.read(info, finish, (), "dataset")
    return Signature(
        operator=info.name,
        shape="collect",
        # For whoever wires it, a fold takes the whole group; that add sees it in pieces is the executor's business.
        ports=tuple(msgspec.structs.replace(p, many="dataset") if p.many == "batch" else p for p in ports),
        options=_options(info, *made),
        columns=columns,
        is_record=is_record,
        is_async=add.is_async,
        takes_dir=bool(finish.ports),
        record_port=record_port,
    )


# ---------------------------------------------------------------- ports


def _ports(info: OperatorInfo, call: Call) -> tuple[tuple[Port, ...], str]:
    arrivals = [_arrival(call, parameter) for parameter in call.ports]
    record = _record_port(arrivals)
    ports: list[Port] = []
    for arrival in arrivals:
        ports += _fields(info, call, arrival) if arrival is record else [_port(info, call, arrival)]
    names = [port.name for port in ports]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise call.bad(f"two ports are named {twice[0]!r}", "rename the parameter or the record's field")
    return tuple(ports), record.parameter.name if record else ""


def _arrival(call: Call, parameter: inspect.Parameter) -> _Arrival:
    annotation, where = parameter.annotation, call.named(parameter.name)
    if get_origin(annotation) in types.UNIONS:
        members = [arg for arg in get_args(annotation) if arg is not type(None)]
        if len(members) == 1 and (members[0] is Vectors or get_origin(members[0]) in (Batch, Dataset)):
            annotation = members[0]
            if parameter.default is ABSENT:
                help = f"write `{parameter.name}: {types.shown(annotation)} | None = None`"
                raise call.bad(f"{where} may be None but has no default", help)
    if annotation is Vectors:
        return _Arrival(parameter, "batch", Vector, block=True)
    if annotation is Batch or annotation is Dataset:
        name = annotation.__name__
        raise call.bad(f"{where} does not say what it holds", f"write `{name}[T]`, for example `{name}[str]`")
    origin = get_origin(annotation)
    if origin is Batch or origin is Dataset:
        return _Arrival(parameter, "batch" if origin is Batch else "dataset", get_args(annotation)[0])
    return _Arrival(parameter, "one", annotation)


def _record_port(arrivals: list[_Arrival]) -> _Arrival | None:
    several = [arrival for arrival in arrivals if arrival.many != "one"]
    return several[0] if len(several) == 1 and fields.is_record(several[0].item) else None


def _fields(info: OperatorInfo, call: Call, arrival: _Arrival) -> list[Port]:
    found = call.read(types.fields_of, call.named(arrival.parameter.name), arrival.item)
    given = fields.defaulted(arrival.item)
    return [
        Port(name=name, type=type_, many=arrival.many, required=name not in given, is_path=_is_path(info, name, type_))
        for name, type_ in found.items()
    ]


def _port(info: OperatorInfo, call: Call, arrival: _Arrival) -> Port:
    name = arrival.parameter.name
    type_ = call.read(types.of, call.named(name), arrival.item)
    return Port(
        name=name,
        type=type_,
        many=arrival.many,
        block=arrival.block,
        required=arrival.parameter.default is ABSENT,
        is_path=_is_path(info, name, type_),
    )


def _is_path(info: OperatorInfo, name: str, type_: Type) -> bool:
    return (type_.kind == "str" and type_.name == "path") or name in info.paths


# ---------------------------------------------------------------- options


def _options(info: OperatorInfo, *calls: Call) -> tuple[Option, ...]:
    found: dict[str, Option] = {}
    ports = {port.name for call in calls if call.method != "__init__" for port in call.ports}
    for call in calls:
        for parameter in call.options:
            name = parameter.name
            if name in found or name in ports:
                other = "an option of __init__" if name in found else "a port"
                raise call.bad(f"{call.named(name)} is {other} too", "rename one of the two")
            found[name] = _option(info, call, parameter)
    return tuple(found.values())


def _option(info: OperatorInfo, call: Call, parameter: inspect.Parameter) -> Option:
    name, where, default = parameter.name, call.named(parameter.name), parameter.default
    rows = (Batch, Dataset, Vectors)
    if get_origin(parameter.annotation) in rows or parameter.annotation in rows:
        raise call.bad(f"{where} holds rows but is an option", "rows come through ports: write it before the `*`")
    type_ = call.read(types.of, where, parameter.annotation)
    if type_.kind in ("bytes", "vector", "artifact", "none"):
        raise call.bad(f"{where}: no TOML value is a {types.show(type_)}", "make it a port: write it before the `*`")
    if default is not ABSENT and (problem := types.value_problem(default, type_)):
        raise call.bad(f"{where}: the default does not fit: {problem}", "mend the type or the default")
    stored = None if default is ABSENT else msgspec.to_builtins(default, enc_hook=os.fspath)
    return Option(
        name=name,
        type=type_,
        required=default is ABSENT,
        default=list(stored) if isinstance(stored, tuple) else stored,
        is_path=_is_path(info, name, type_),
        is_model=name in info.models,
    )


def _check_names(info: OperatorInfo, signature: Signature) -> None:
    options = [option.name for option in signature.options]
    ports = [port.name for port in signature.ports]
    if clash := sorted(set(options) & set(ports)):
        raise BadSignature(info.name, f"{clash[0]!r} is both a port and an option", "rename one of the two")
    for table, names, known, noun in (
        ("models", info.models, options, "option"),
        ("paths", info.paths, options + ports, "option or port"),
        ("streamed", (info.streamed,) if info.streamed else (), list(signature.columns), "column"),
    ):
        for name in names:
            if name not in known:
                help = f"known: {', '.join(known) or 'none'}.{suggest(name, known)}"
                raise BadSignature(info.name, f"{table}= names {name!r}, which is no {noun}", help)
