"""Workflows written in Python: a fluent API that makes the same document, and so the same graph, as a TOML file.

Nothing runs and nothing is looked up while a workflow is being described; `Workflow.graph` resolves operators with a
host and passes the document through the checker that files go through.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path, PurePath
from typing import Any, Literal

import msgspec

from sage_core.common.errors import UsageError, suggest
from sage_core.common.host import Host
from sage_core.common.operators import MARK, OperatorInfo
from sage_core.kernel.dataflow import check, layout, signature
from sage_core.kernel.dataflow.graph import Graph, Shape, Signature

#: The method that takes an operator, by what the operator does to rows, where the two have different names.
_METHODS: Mapping[Shape, str] = {"expand": "flat_map", "collect": "reduce"}
#: Keys of a step that `Stream.set` may give.
_SETTINGS = tuple(key for key in layout.STEP if key not in ("use", "in", "with"))
_TABLES = ("description", "defaults", "slo", "triggers")


class _Reference:
    """A path into the rows; attributes and items lead on to what is below it."""

    def __init__(self, path: str) -> None:
        self._path = path

    def __getattr__(self, name: str) -> Column:
        if name.startswith("_"):
            raise AttributeError(name)
        return self[name]

    def __getitem__(self, name: str) -> Column:
        return Column(f"{self._path}.{name}")


class Column(_Reference):
    """A reference to a column or to a field of one: ``stream.text``, ``passages.first.text``."""

    def __invert__(self) -> Column:
        """``~stream.text``: absent becomes null, which TOML spells ``"stream.text?"``."""
        return Column(self._path if self._path.endswith("?") else f"{self._path}?")

    def __repr__(self) -> str:
        return f"<column {self._path}>"


class Value:
    """A literal for a port, where a plain text would look like a reference."""

    def __init__(self, value: Any) -> None:
        self.value = value


class _Step(msgspec.Struct):
    """One step as it was written, before any operator is looked up."""

    name: str
    use: Any
    method: str
    previous: Stream | None
    given: Mapping[str, Any]
    settings: dict[str, Any] = {}


class Stream(_Reference):
    """The rows that a step makes; attributes and items are its columns."""

    def __init__(self, workflow: Workflow, step: _Step) -> None:
        super().__init__(step.name)
        self._workflow, self._step = workflow, step

    def __repr__(self) -> str:
        return f"<stream {self._path}>"

    def map(self, use: Any, /, *, name: str = "", **given: Any) -> Stream:
        """One row to one row; keywords are ports and options of the operator."""
        return self._workflow._add(use, "map", name, self, given)

    def filter(self, use: Any, /, *, name: str = "", **given: Any) -> Stream:
        """Keep some rows: what follows in the chain runs on those alone."""
        return self._workflow._add(use, "filter", name, self, given)

    def flat_map(self, use: Any, /, *, name: str = "", **given: Any) -> Stream:
        """One row to many, which are rows of a level of their own."""
        return self._workflow._add(use, "flat_map", name, self, given)

    def reduce(self, use: Any, /, *, name: str = "", per: Stream | str | None = None, **given: Any) -> Stream:
        """All rows to one value, or to one row per row of an earlier stream."""
        made = self._workflow._add(use, "reduce", name, self, given)
        return made.set(per=per) if per is not None else made

    def sink(self, use: Any, /, *, name: str = "", **given: Any) -> Stream:
        """Hand rows to an operator that makes no columns."""
        return self._workflow._add(use, "sink", name, self, given)

    def join(self, other: Stream, *, on: Any, how: Literal["inner", "left"] = "inner", name: str = "") -> Stream:
        """Match rows of two streams where columns are equal.

        `on` is a name that both sides have, several of them, ``{"left name": "right name"}``, or pairs of columns.
        """
        given = {"left": self, "right": other}
        made = self._workflow._add("join", "join", name, self, given)
        made._step.settings |= {"on": _pairs(self, other, on)} | ({"how": how} if how != "inner" else {})
        return made

    def set(self, **settings: Any) -> Stream:
        """Give the step any other key it may have in TOML: ``when``, ``retry``, ``on_error``, ``matrix``, …"""
        for key, value in settings.items():
            _known(f"step {self._step.name!r}", "setting", key, _SETTINGS)
            self._step.settings[key] = _names(value) if key in ("rows", "after", "per") else _plain(value)
        return self


class Workflow:
    """A workflow under construction."""

    def __init__(self, name: str, *, base: str | Path = ".") -> None:
        self._name, self._base = name, Path(base)
        self._params: dict[str, Any] = {}
        self._models: dict[str, Any] = {}
        self._steps: dict[str, _Step] = {}
        self._outputs: dict[str, Any] = {}
        self._tables: dict[str, Any] = {}

    def param(self, name: str, type: str, **keys: Any) -> Column:
        """Declare a run parameter; the column that is returned feeds ports and options alike."""
        self._once("param", name, self._params)
        self._params[name] = {"type": type, **_plain(keys)}
        return Column(f"params.{name}")

    def model(self, name: str, *, backend: str, **keys: Any) -> str:
        """Declare a model; returns its name, for options that take one."""
        self._once("model", name, self._models)
        self._models[name] = {"backend": backend, **_plain(keys)}
        return name

    def source(self, use: Any, /, *, name: str = "", **given: Any) -> Stream:
        """Start a stream: a step that reads no other stream's rows, of any kind."""
        return self._add(use, "source", name, None, given)

    def output(self, name: str, what: Column | Stream | Sequence[Column | Stream]) -> None:
        """Name a result of the run."""
        self._once("output", name, self._outputs)
        self._outputs[name] = _reference(what)
        if self._outputs[name] is None:
            raise UsageError(f"output {name!r} is no column but {what!r}", "write a column: stream.text")

    def set(self, **tables: Any) -> None:
        """Give a top-level table or key: ``slo``, ``defaults``, ``triggers``, ``description``."""
        for key, value in tables.items():
            _known("a workflow", "table", key, _TABLES)
            self._tables[key] = _plain(value)

    def to_dict(self, host: Host) -> dict[str, Any]:
        """The document that a TOML file with the same meaning parses to."""
        document: dict[str, Any] = {"sage": 1, "name": self._name, **self._tables}
        tables = {"params": self._params, "models": self._models, "outputs": self._outputs}
        document |= {key: dict(table) for key, table in tables.items() if table}
        document["steps"] = {name: self._document(step, host) for name, step in self._steps.items()}
        return document

    def graph(self, host: Host, *, known_models: Mapping[str, Mapping[str, Any]] | None = None) -> Graph:
        """Check the workflow; raises `InvalidWorkflow` with every problem at once. Models of sage.toml may be given."""
        tree = self.to_dict(host)
        return check.check_tree(tree, host, base=self._base, name=self._name, known_models=known_models)

    def _once(self, noun: str, name: str, taken: Mapping[str, object]) -> None:
        if name in taken:
            raise UsageError(f"{noun} {name!r} is defined twice in workflow {self._name!r}", "rename one of them")

    def _add(self, use: Any, method: str, name: str, previous: Stream | None, given: Mapping[str, Any]) -> Stream:
        if not isinstance(use, str):
            _importable(use, method)
        name = name or (use if isinstance(use, str) else use.__name__).rpartition(".")[2]
        if name in self._steps:
            raise UsageError(
                f"step {name!r} is defined twice in workflow {self._name!r}", f"name this one: .{method}(…, name='…')"
            )
        for what in _flat(given.values()):
            if isinstance(what, Stream) and what._workflow is not self:
                raise UsageError(f"step {name!r} reads {what!r} of another workflow", "build both in one Workflow")
        step = self._steps[name] = _Step(name, use, method, previous, given)
        return Stream(self, step)

    def _document(self, step: _Step, host: Host) -> dict[str, Any]:
        if step.method == "join":
            sides = {side: _reference(stream) for side, stream in step.given.items()}
            return {"use": "join", "in": sides, **step.settings}
        use = offered(step.use, host)
        found = signature.of(host.operators[use])
        method = _METHODS.get(found.shape, found.shape)
        if step.method not in ("source", method):
            raise UsageError(f"step {step.name!r}: {use!r} is not for .{step.method}()", f"write .{method}({use!r}, …)")
        bound, options = self._split(step, found)
        if step.previous is not None:
            bound = self._wired(step.previous._step, found, bound, host)
        settings = dict(step.settings)
        if step.previous is not None and _narrows(step.previous._step):
            before = step.previous._step.name
            if not any(_reads(reference, before) for reference in bound.values()) and "rows" not in settings:
                settings["rows"] = before
        return {"use": use, **({"in": bound} if bound else {}), **({"with": options} if options else {}), **settings}

    def _split(self, step: _Step, found: Signature) -> tuple[dict[str, Any], dict[str, Any]]:
        ports = {port.name for port in found.ports}
        known = [*ports, *(option.name for option in found.options)]
        bound, options = {}, {}
        for name, what in step.given.items():
            if name in ports:
                bound[name] = self._binding(step, name, what)
            elif name in known:
                options[name] = _option(step, name, what)
            else:
                raise UsageError(
                    f"step {step.name!r}: {found.operator!r} has neither a port nor an option {name!r}."
                    f"{suggest(name, known)}",
                    f"ports: {', '.join(sorted(ports)) or 'none'}; "
                    f"options: {', '.join(option.name for option in found.options) or 'none'}; "
                    "settings of the step go to .set(…)",
                )
        return bound, options

    def _binding(self, step: _Step, port: str, what: Any) -> Any:
        reference = _reference(what)
        if reference is not None:
            return reference
        if isinstance(what, str) and what.partition(".")[0] in (*self._steps, "params"):
            raise UsageError(
                f"step {step.name!r}: port {port!r} is given the text {what!r}, which looks like a reference",
                f"write the stream's column, or Value({what!r}) for the text itself",
            )
        return {"value": _plain(what.value if isinstance(what, Value) else what)}

    def _wired(self, before: _Step, found: Signature, bound: dict[str, Any], host: Host) -> dict[str, Any]:
        """Feed ports that nothing was said about from the previous step's columns of the same name."""
        if before.method == "join":
            return bound
        columns = signature.of(host.operators[offered(before.use, host)]).columns
        missing = [port.name for port in found.ports if port.required and port.name not in bound]
        if len(missing) == len(columns) == 1 and missing[0] not in columns:
            return {**bound, missing[0]: before.name}
        return bound | {port: f"{before.name}.{port}" for port in missing if port in columns}


def offered(target: Any, host: Host) -> str:
    """The name under which a host knows a marked function; one that no plugin offers becomes ``local.module.name``."""
    if isinstance(target, str):
        return target
    info: OperatorInfo = getattr(target, MARK)
    place = f"{target.__module__}:{target.__qualname__}"
    if info.name in host.operators and host.operators.target(info.name) == place:
        return info.name
    name = f"local.{target.__module__}.{target.__qualname__}"
    if name not in host.operators:
        host.operators.add("local", {name: place})
    return name


def _known(owner: str, noun: str, key: str, known: Sequence[str]) -> None:
    if key not in known:
        raise UsageError(f"{owner} has no {noun} {key!r}.{suggest(key, known)}", f"{noun}s: {', '.join(known)}")


def _importable(target: Any, method: str) -> None:
    name = getattr(target, "__qualname__", repr(target))
    if not (inspect.isfunction(target) or inspect.isclass(target)):
        problem, help = f"takes an operator's name or a function, not {target!r}", "write its name, such as 'rag.chunk'"
    elif target.__name__ == "<lambda>":
        problem = "cannot take a lambda: it has no types, and no worker could import it"
        help = "write a module-level function with annotations and mark it with @operator"
    elif getattr(sys.modules.get(target.__module__), target.__name__, None) is not target:
        problem = f"cannot take {name!r}: no worker could import it from {target.__module__}"
        help = "define it at the top level of a module"
    elif not hasattr(target, MARK):
        problem, help = f"cannot take {name!r}: it is not marked as an operator", "write @operator('name') above it"
    else:
        return
    raise UsageError(f".{method}() {problem}", help)


def _flat(values: Iterable[Any]) -> Iterable[Any]:
    for value in values:
        yield from value if isinstance(value, list | tuple) else [value]


def _reference(what: Any) -> Any:
    """The TOML spelling of a column, a whole stream, or a merge of several; None for anything else."""
    if isinstance(what, _Reference):
        return what._path
    if isinstance(what, list | tuple) and what and all(isinstance(item, _Reference) for item in what):
        return [_reference(item) for item in what]
    return None


def _pairs(left: Stream, right: Stream, on: Any) -> dict[str, str]:
    pairs = on.items() if isinstance(on, Mapping) else [on] if isinstance(on, str) else on
    found = {}
    for pair in pairs:
        ends = (pair, pair) if isinstance(pair, str) else tuple(pair)
        if len(ends) != 2 or not all(isinstance(end, str | Column) for end in ends):
            raise UsageError(
                f"{left!r} cannot be joined on {pair!r}", "write on='name', or on={'left name': 'right name'}"
            )
        sides = ((left, ends[0]), (right, ends[1]))
        first, second = ((end if isinstance(end, Column) else side[end])._path for side, end in sides)
        found[first] = second
    return found


def _reads(reference: Any, step: str) -> bool:
    paths = reference if isinstance(reference, list) else [reference]
    return any(isinstance(path, str) and path.rstrip("?").partition(".")[0] == step for path in paths)


def _option(step: _Step, name: str, what: Any) -> Any:
    if isinstance(what, _Reference) and not what._path.startswith("params."):
        raise UsageError(
            f"step {step.name!r}: {name!r} is an option, fixed for the whole run, and cannot be {what!r}",
            "options take plain values and params",
        )
    return _plain(what.value if isinstance(what, Value) else what)


def _narrows(step: _Step) -> bool:
    """Whether a filter or a join earlier in the chain decided which rows there are."""
    while step.method in ("map", "flat_map") and step.previous is not None:
        step = step.previous._step
    return step.method in ("filter", "join")


def _names(what: Any) -> Any:
    if isinstance(what, Stream):
        return what._step.name
    return [_names(item) for item in what] if isinstance(what, list | tuple) else what


def _plain(value: Any) -> Any:
    if isinstance(value, Column) and value._path.startswith("params."):
        return f"${{{value._path}}}"
    if isinstance(value, Mapping):
        return {str(key): _plain(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(entry) for entry in value]
    return str(value) if isinstance(value, PurePath) else value
