"""Options of a step: ``with`` and ``matrix`` held against the operator's keyword-only parameters."""

from __future__ import annotations

import itertools
import math
import os
from collections.abc import Mapping
from pathlib import Path as FilePath
from typing import Any

from sage_core.common.errors import BadValue
from sage_core.kernel.dataflow import params, types
from sage_core.kernel.dataflow.diagnostics import Problems, one_of
from sage_core.kernel.dataflow.draft import Draft
from sage_core.kernel.dataflow.expressions import template_refs, whole_ref
from sage_core.kernel.dataflow.graph import Option, Param, Signature, Type
from sage_core.kernel.dataflow.keys import kind, unstorable
from sage_core.kernel.dataflow.spans import Path
from sage_core.kernel.dataflow.spec import Document

#: More cells than this are a mistake.
_CELLS = 10_000
_TEXT = Type(kind="str")


class Options:
    """Checks options of every step; remembers which params they read."""

    def __init__(
        self, document: Document, declared: Mapping[str, Param], models: Mapping[str, object], broken: Mapping[str, str]
    ) -> None:
        self._document, self._declared, self._models, self._broken = document, declared, models, broken
        #: Names of the params that some option reads.
        self.read: set[str] = set()

    def bind(self, draft: Draft, signature: Signature) -> dict[str, Any]:
        """Check ``with``; the options with defaults filled in and templates left in place."""
        settings = draft.settings.section("with")
        matrix = draft.settings.section("matrix")
        known = {option.name: option for option in signature.options}
        ports = tuple(port.name for port in signature.ports)
        found = {option.name: option.default for option in signature.options if not option.required}
        for name, value in settings.table.items():
            path = (*settings.path, name)
            if name in known:
                found[name] = self._value(known[name], value, path, settings.problems)
            elif name in ports:
                help = f'write in = {{ {name} = "step.column" }}'
                settings.problems.add(path, f"{name!r} is a port of {draft.use!r}, not an option", help, "key")
            else:
                help = one_of(name, tuple(known), "options")
                settings.problems.add(path, f"{draft.use!r} has no option {name!r}", help, "key")
        for option in signature.options:
            if option.required and option.name not in {*settings.table, *matrix.table, *draft.misplaced()}:
                shown = f"{draft.use!r} needs the option {option.name!r} ({types.show(option.type)})"
                settings.problems.add(draft.path, shown, f"write with = {{ {option.name} = … }}", "key")
        return {name: found[name] for name in known if name in found}

    def cells(self, draft: Draft, signature: Signature) -> tuple[dict[str, Any], ...]:
        """Check ``matrix``; one dict of options per cell, the last key varying fastest."""
        settings = draft.settings.section("matrix")
        given = draft.settings.section("with")
        known = {option.name: option for option in signature.options}
        axes: dict[str, list[Any]] = {}
        for name, values in settings.table.items():
            path = (*settings.path, name)
            if name not in known:
                port = any(port.name == name for port in signature.ports)
                help = "a matrix binds options" if port else one_of(name, tuple(known), "options")
                kind_ = "is a port of" if port else "is no option of"
                settings.add(name, f"{name!r} {kind_} {draft.use!r}", help, "key")
            elif name in given:
                settings.add(name, f"option {name!r} is in both 'with' and 'matrix'", "keep one of them", "key")
            elif name in signature.columns:
                settings.add(name, f"the column {name!r} of {draft.use!r} would be hidden by the matrix", part="key")
            elif not isinstance(values, list) or not values:
                settings.add(
                    name,
                    f"a matrix needs a list of values, not {'an empty list' if values == [] else kind(values)}",
                    f"write {name} = […, …]",
                )
            else:
                places = [(value, (*path, index)) for index, value in enumerate(values)]
                axes[name] = [
                    self._value(known[name], value, place, settings.problems, cell=True) for value, place in places
                ]
        total = math.prod(map(len, axes.values()))
        if total > _CELLS:
            settings.problems.add(settings.path, f"the matrix has {total:,} cells, more than {_CELLS:,}", part="key")
            return ()
        return tuple(dict(zip(axes, cell, strict=True)) for cell in itertools.product(*axes.values())) if axes else ()

    def _value(self, option: Option, value: Any, path: Path, problems: Problems, cell: bool = False) -> Any:
        """Check one option's value; returns it with a relative path made relative to the workflow's folder.

        `cell`: it is a value of a matrix, which becomes a column.
        """
        if problem := unstorable(value):
            problems.add(path, problem)
            return value
        try:
            refs = template_refs(value)
        except BadValue as error:
            problems.bad(path, error)
            return value
        for space, name in refs:
            self._reference(space, name, path, problems)
            if cell and self._is_secret(space, name):
                message = f"${{{space}.{name}}} is secret and cannot become a column, as the values of a matrix do"
                problems.add(path, message, f"an option may hold it: with = {{ {option.name} = … }}")
        wrong = self._problem(option, value, refs)
        if wrong is not None:
            problems.add(path, f"option {option.name!r}: {wrong[0]}", wrong[1])
        return self._document.rebase(value, path) if option.is_path else value

    def _reference(self, space: str, name: str, path: Path, problems: Problems) -> None:
        if space == "params":
            self.read.add(name)
            if name not in self._declared:
                problems.add(path, f"no param is named {name!r}", one_of(name, tuple(self._declared), "params"))
        elif space == "run" and name not in ("id", "name"):
            problems.add(path, f"${{run.{name}}} refers to nothing", "the run has ${run.id} and ${run.name}")

    def _is_secret(self, space: str, name: str) -> bool:
        return space == "secret" or (space == "params" and name in self._declared and self._declared[name].secret)

    def _problem(self, option: Option, value: Any, refs: tuple[tuple[str, str], ...]) -> tuple[str, str] | None:
        whole = whole_ref(value)
        if whole is not None:
            param = self._declared.get(whole[1]) if whole[0] == "params" else None
            if whole[0] == "params" and param is None:
                return None
            source = params.column(param) if param else _TEXT
            if types.assignable(source, option.type):
                return None
            help = "give the param a default" if source.optional and not option.type.optional else ""
            return f"takes {types.show(option.type)}, but {value} is {types.show(source)}", help
        if refs:
            fits = not isinstance(value, str) or types.assignable(_TEXT, option.type)
            return None if fits else (f"takes {types.show(option.type)}, and {value!r} makes a text", "")
        if isinstance(value, str) and value.startswith("params.") and value[7:] in self._declared:
            return f"{value!r} would be the text itself", f'write "${{{value}}}"'
        problem = types.value_problem(value, option.type)
        if problem:
            return problem, ""
        if option.is_model and isinstance(value, str) and value not in self._models:
            if value in self._broken:
                return f"the model {value!r} of sage.toml cannot be used: {self._broken[value]}", ""
            return f"no model is named {value!r}", one_of(value, tuple(self._models), "models")
        return None


def join_path(value: Any, folder: FilePath) -> Any:
    """A path option's value, or list of values, with relative ones starting at `folder`."""
    if isinstance(value, list):
        return [join_path(item, folder) for item in value]
    if not isinstance(value, str) or not value:
        return value
    return os.path.abspath(os.path.join(folder, os.path.expanduser(value)))
