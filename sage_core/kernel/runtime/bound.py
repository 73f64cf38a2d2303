"""An operator bound to one step's options: what the executor calls, whatever form the author gave it."""

from __future__ import annotations

import functools
import typing
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec

from sage_core.common.operators import ArtifactDir, Batch, Context, Dataset
from sage_core.kernel.dataflow import fields
from sage_core.kernel.dataflow.graph import Step
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
        self._options = dict(options)
        self._context = context
        self._ports = tuple(ports)
        self._instance: Any = None
        self._converts = self._conversions()

    def call(self) -> Call:
        """The operator as a call that takes one argument per wired port."""
        signature = self._signature
        if signature.form == "callable":
            self._instance = self._instance or self._target(**self._keywords("__init__"))
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

    def fold(self) -> tuple[Callable[..., None], Callable[[ArtifactDir], Any]]:
        """A fresh fold: ``add`` takes one batch per wired port, ``finish`` gives the result."""
        fold = self._target(**self._keywords("__init__"))
        add = self._adapt(fold.add, self._context_for("add"))
        more = self._context_for("finish")

        def finish(out: ArtifactDir) -> Any:
            return fold.finish(out, **more) if self._signature.takes_dir else fold.finish(**more)

        return add, finish

    def close(self) -> None:
        """Close what the operator holds open."""
        close = getattr(self._instance, "close", None)
        self._instance = None
        if close is not None:
            close()

    def _adapt(self, function: Callable[..., Any], keywords: Mapping[str, Any]) -> Callable[..., Any]:
        """Positional arguments in the order of the wired ports, records where the author asked for records."""
        signature = self._signature
        if signature.record_port:
            return self._records(function, keywords)
        leading = tuple(port.name for port in signature.ports[: len(self._ports)])
        if not self._converts and leading == self._ports:
            return functools.partial(function, **keywords) if keywords else function
        names, converts = self._ports, self._converts

        def adapted(*args: Any) -> Any:
            given = {
                name: converts[name](arg) if name in converts else arg for name, arg in zip(names, args, strict=True)
            }
            return function(**given, **keywords)

        return adapted

    def _records(self, function: Callable[..., Any], keywords: Mapping[str, Any]) -> Callable[..., Any]:
        record = typing.get_args(self._hints()[self._signature.record_port])[0]
        names, converts = self._ports, self._converts

        def adapted(*args: Any) -> Any:
            columns = [converts[name](arg) if name in converts else arg for name, arg in zip(names, args, strict=True)]
            rows = zip(*columns, strict=True)
            return function([record(**dict(zip(names, row, strict=True))) for row in rows], **keywords)

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
        if self._signature.record_port:
            hints = typing.get_type_hints(typing.get_args(hints[self._signature.record_port])[0])
        found = {port.name: _converter(hints[port.name]) for port in wanted}
        many = {port.name for port in wanted if port.many != "one"}
        return {name: _each(convert) if name in many else convert for name, convert in found.items() if convert}


def _each(convert: Convert) -> Convert:
    return lambda values: [convert(value) for value in values]


def _converter(hint: Any) -> Convert | None:
    """From stored dictionaries to the author's record classes; None where dictionaries are what is asked for."""
    if typing.get_origin(hint) in (Batch, Dataset):
        hint = typing.get_args(hint)[0]
    if not _mentions_class(hint):
        return None
    return lambda value: msgspec.convert(value, hint, strict=False, from_attributes=True)


def _mentions_class(hint: Any) -> bool:
    if fields.is_record(hint):
        return not typing.is_typeddict(hint)
    return any(_mentions_class(arg) for arg in typing.get_args(hint))
