"""An operator bound to one step's options: what the executor calls, whatever form the author gave it."""

from __future__ import annotations

import functools
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from pathlib import PurePath
from typing import Any

import msgspec

from sage_core.common.operators import Batch, Context, Dataset
from sage_core.kernel.dataflow import fields
from sage_core.kernel.dataflow.graph import Step
from sage_core.kernel.dataflow.signature import record_class
from sage_core.kernel.runtime.calls import Call
from sage_core.kernel.runtime.values import has_record

Convert = Callable[[Any], Any]


class Bound:
    """One operator with its options filled in; opens a class form once and closes it with the worker.

    Args:
        ports: names of the ports that are wired, in the operator's order.
        options: every option's value; secrets are in place.
    """

    def __init__(
        self, step: Step, target: Any, ports: Sequence[str], options: Mapping[str, Any], context: Context
    ) -> None:
        self._step = step
        self._signature = step.signature
        self._target = target
        self._options = self._converted(options)
        self._context = context
        self._ports = tuple(ports)
        self._instance: Any = None
        self._converts = self._conversions()

    def call(self) -> Call:
        """The operator as a call that takes one argument per wired port."""
        signature = self._signature
        if signature.form == "callable":
            if self._instance is None:
                self._instance = self._target(**self._keywords("__init__"))
            function, keywords = self._instance, self._keywords("__call__")
        else:
            function, keywords = self._target, self._keywords("")
        return Call(
            self._adapt(function, keywords),
            step=self._step.name,
            is_async=signature.is_async,
            expands=signature.shape == "expand",
            pure=signature.pure,
            retry=self._step.retry,
            timeout=self._step.timeout,
        )

    def fold(self) -> tuple[Callable[..., Any], Callable[..., Any]]:
        """A fresh fold: ``add`` takes one batch per wired port, ``finish`` a directory if its author asks for one."""
        fold = self._target(**self._keywords("__init__"))
        finish = functools.partial(fold.finish, **self._context_for("finish"))
        return self._adapt(fold.add, self._context_for("add")), finish

    def close(self) -> None:
        """Close what the operator holds open."""
        close = getattr(self._instance, "close", None)
        self._instance = None
        if close is not None:
            close()

    def _adapt(self, function: Callable[..., Any], keywords: Mapping[str, Any]) -> Callable[..., Any]:
        """Positional arguments in the order of the wired ports, records where the author asked for records."""
        signature = self._signature
        names, converts = self._ports, self._converts
        leading = tuple(port.name for port in signature.ports[: len(names)])
        if not converts and leading == names and not signature.record_port:
            return functools.partial(function, **keywords) if keywords else function
        record = record_class(self._target)
        inside = fields.names(record) if record else ()

        def adapted(*args: Any) -> Any:
            given = {n: converts[n](arg) if n in converts else arg for n, arg in zip(names, args, strict=True)}
            if record is not None:
                columns = {name: given.pop(name) for name in inside if name in given}
                rows = zip(*columns.values(), strict=True)
                given[signature.record_port] = [record(**dict(zip(columns, row, strict=True))) for row in rows]
            return function(**given, **keywords)

        return adapted

    def _keywords(self, method: str) -> dict[str, Any]:
        signature = self._signature
        if method == "__init__":
            names: Sequence[str] = signature.init_options
        elif method == "__call__":
            names = [name for name in self._options if name not in signature.init_options]
        else:
            names = tuple(self._options)
        return {name: self._options[name] for name in names if name in self._options} | self._context_for(method)

    def _context_for(self, method: str) -> dict[str, Any]:
        wanted = method in self._signature.context_in if method else self._signature.wants_context
        return {"ctx": self._context} if wanted else {}

    def _hints(self) -> dict[str, Any]:
        method = {"function": "", "callable": "__call__", "fold": "add"}[self._signature.form]
        return typing.get_type_hints(getattr(self._target, method) if method else self._target, include_extras=True)

    def _conversions(self) -> dict[str, Convert]:
        wanted = [port for port in self._signature.ports if port.name in self._ports and has_record(port.type)]
        if not wanted:
            return {}
        hints = self._hints()
        if record := record_class(self._target):
            hints |= typing.get_type_hints(record)
        found = {port.name: _converter(hints[port.name]) for port in wanted}
        many = {port.name for port in wanted if port.many != "one"}
        return {name: _each(convert) if name in many else convert for name, convert in found.items() if convert}

    def _converted(self, options: Mapping[str, Any]) -> dict[str, Any]:
        """Options as their annotations ask for them: paths and records."""
        wanted = [option.name for option in self._signature.options if has_record(option.type)]
        if not wanted:
            return dict(options)
        hints: dict[str, Any] = {}
        for method in ("__init__", "__call__") if isinstance(self._target, type) else ("",):
            target = getattr(self._target, method, None) if method else self._target
            hints |= typing.get_type_hints(target, include_extras=True) if target else {}
        converts = {name: _converter(hints[name]) for name in wanted if name in options}
        return {name: convert(v) if (convert := converts.get(name)) else v for name, v in options.items()}


def _each(convert: Convert) -> Convert:
    return lambda values: [convert(value) for value in values]


def _converter(hint: Any) -> Convert | None:
    """From stored values to the author's classes; None where dictionaries and texts are what is asked for."""
    if typing.get_origin(hint) in (Batch, Dataset):
        hint = typing.get_args(hint)[0]
    if not _mentions_class(hint):
        return None
    if _mentions_tuple(hint):
        return lambda value: _convert(_arrayed(value, hint), hint)
    return lambda value: _convert(value, hint)


def _convert(value: Any, hint: Any) -> Any:
    return msgspec.convert(value, hint, strict=False, from_attributes=True, dec_hook=_decoded)


def _arrayed(value: Any, hint: Any) -> Any:
    """The value with arrays where the annotation has a NamedTuple: msgspec makes one of nothing else."""
    if isinstance(value, Mapping) and fields.is_record(hint):
        inside = typing.get_type_hints(hint)
        made = {name: _arrayed(item, inside.get(name)) for name, item in value.items()}
        if not issubclass(hint, tuple):
            return made
        return [made.get(name, getattr(hint, "_field_defaults", {}).get(name)) for name in fields.names(hint)]
    args = typing.get_args(hint)
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        for arg in args:
            value = _arrayed(value, arg)
        return value
    if isinstance(value, list) and args:
        return [_arrayed(item, args[0]) for item in value]
    return {key: _arrayed(item, args[-1]) for key, item in value.items()} if isinstance(value, dict) and args else value


def _mentions_tuple(hint: Any, inside: tuple[Any, ...] = ()) -> bool:
    if not fields.is_record(hint):
        return any(_mentions_tuple(arg, inside) for arg in typing.get_args(hint))
    if hint in inside:
        return False
    return issubclass(hint, tuple) or any(
        _mentions_tuple(each, (*inside, hint)) for each in typing.get_type_hints(hint).values()
    )


def _decoded(kind: type, value: Any) -> Any:
    """What msgspec has no type for: a path is made, vectors and artifacts are what they are."""
    return kind(value) if issubclass(kind, PurePath) else value


def _mentions_class(hint: Any) -> bool:
    if isinstance(hint, type) and issubclass(hint, PurePath):
        return True
    if fields.is_record(hint):
        return not typing.is_typeddict(hint)
    return any(_mentions_class(arg) for arg in typing.get_args(hint))
