"""What references stand for: looks a column up among the steps resolved so far and says its type and grain."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from sage_core.common.records import Record
from sage_core.kernel.dataflow import params, types
from sage_core.kernel.dataflow.diagnostics import Problems, one_of
from sage_core.kernel.dataflow.grains import Source
from sage_core.kernel.dataflow.graph import RUN, Param, Port, Ref, Signature, Type
from sage_core.kernel.dataflow.references import PARAMS, quoted, show
from sage_core.kernel.dataflow.spans import Path

_NAMESPACES = ("run", "env", "secret")


class Made(Record):
    """What is known of a step's results. None where an error leaves it open: dependents then stay silent about it."""

    signature: Signature | None = None
    columns: dict[str, Type] | None = None
    out: str | None = None


class Found(Record):
    """A reference after look-up: the column is filled in where only a step was named; "" means the whole record."""

    ref: Ref
    type: Type | None = None
    grain: str | None = None


class Columns:
    """Everything that a reference may name."""

    def __init__(self, declared: Mapping[str, Param], problems: Problems) -> None:
        self._declared, self._problems = declared, problems
        self.steps: dict[str, Made] = {}
        #: Steps and params that something reads.
        self.read: set[str] = set()
        #: Steps that something waits for.
        self.awaited: set[str] = set()
        self.read_params: set[str] = set()

    def find(self, ref: Ref, path: Path, *, literal: bool = False) -> Found | None:
        """Look one reference up; None when it was reported. `literal`: it may have been meant as a text."""
        if ref.step == PARAMS:
            return self._param(ref, path)
        if ref.step not in self.steps:
            self._unknown(ref, path, literal)
            return None
        self.read.add(ref.step)
        made = self.steps[ref.step]
        if made.columns is None:
            return Found(ref=ref, grain=made.out)
        if not ref.column:
            return self._whole(ref, made, made.columns, path)
        if ref.column not in made.columns:
            self._problems.add(path, f"step {ref.step!r} has no column {ref.column!r}", self._columns_help(ref, made))
            return None
        found = self._field(made.columns[ref.column], ref, path)
        return None if found is None else Found(ref=ref, type=_null(found, ref), grain=made.out)

    def fits(self, found: Found, port: Port, use: str, path: Path, present: frozenset[str] = frozenset()) -> None:
        """Report a column whose type its port does not take, naming both ends; `present`: not null, says `when`."""
        if found.type is None or types.assignable(found.type, port.type):
            return
        text, wanted = show(found.ref), types.show(port.type)
        needed = msgspec.structs.replace(found.type, optional=False)
        if text in present and types.assignable(needed, port.type):
            return
        if not types.assignable(needed, port.type) or found.type.kind == "none":
            made = types.show(found.type) if found.ref.column else "a record of all its columns"
            message = f"port {port.name!r} of {use!r} takes {wanted}, but {text!r} is {made}"
            help = _record_help(found.type, port.type)
            if not found.ref.column and port.type.kind not in ("record", "dict"):
                help = f"name one of its columns: {', '.join(f'{text}.{name}' for name in found.type.fields)}"
            self._problems.add(path, message, help)
        elif found.ref.optional:
            message = f"{text!r} may be null, and port {port.name!r} of {use!r} takes {wanted}"
            self._problems.add(path, message, "leave the ? out: the step then runs only where the column is present")
        else:
            made = types.show(found.type)
            message = f"{text!r} may be null ({made}), and port {port.name!r} of {use!r} takes {wanted}"
            help = f'add when = "{text} != null"'
            if found.ref.step == PARAMS:
                help += f", or give param {found.ref.column!r} a default"
            self._problems.add(path, message, help)

    def source(self, found: Found, path: Path) -> Source | None:
        """The rows a reference brings, if they are known."""
        return None if found.grain is None else Source(grain=found.grain, shown=show(found.ref), path=path)

    def wait(self, name: str, path: Path) -> None:
        """Hold a step named in ``after`` against those there are."""
        if name not in self.steps:
            self._unknown(Ref(step=name, column=""), path, False)
        self.awaited.add(name)

    def rows(self, name: str, path: Path) -> Source | None:
        """The rows of a step that is named without a column."""
        if name not in self.steps:
            self._unknown(Ref(step=name, column=""), path, False)
            return None
        self.read.add(name)
        made = self.steps[name]
        return None if made.out is None else Source(grain=made.out, shown=name, path=path)

    def _param(self, ref: Ref, path: Path) -> Found | None:
        names = tuple(self._declared)
        if not ref.column:
            self._problems.add(path, "'params' is no column; name one param", one_of("", names, "params"))
            return None
        self.read_params.add(ref.column)
        param = self._declared.get(ref.column)
        if param is None:
            self._problems.add(path, f"no param is named {ref.column!r}", one_of(ref.column, names, "params"))
            return None
        if param.secret:
            message = f"param {param.name!r} is secret and cannot become a column"
            self._problems.add(path, message, f'an option may hold it: with = {{ … = "${{params.{param.name}}}" }}')
            return None
        found = self._field(params.column(param), ref, path)
        return None if found is None else Found(ref=ref, type=_null(found, ref), grain=RUN)

    def _unknown(self, ref: Ref, path: Path, literal: bool) -> None:
        text = show(ref)
        if ref.step in _NAMESPACES:
            message = f"{text!r}: {ref.step!r} is no step; a port takes columns"
            self._problems.add(path, message, f'an option may hold it: with = {{ … = "${{{text}}}" }}')
            return
        names = (*self.steps, PARAMS)
        help = one_of(ref.step, names, "steps")
        if literal:
            help += f"; for the text itself write {{ value = {quoted(text)} }}"
        self._problems.add(path, f"no step is named {ref.step!r}", help)

    def _whole(self, ref: Ref, made: Made, columns: Mapping[str, Type], path: Path) -> Found | None:
        if not columns:
            join = made.signature is not None and made.signature.shape == "join"
            why = "a join has no columns of its own" if join else "it returns nothing"
            help = "read the columns of its left and right side" if join else "name it in `after` to wait for it"
            self._problems.add(path, f"step {ref.step!r} has no columns: {why}", help)
            return None
        if len(columns) == 1:
            ((name, only),) = columns.items()
            return Found(ref=msgspec.structs.replace(ref, column=name), type=_null(only, ref), grain=made.out)
        record = Type(kind="record", name=ref.step, fields=dict(columns))
        return Found(ref=ref, type=_null(record, ref), grain=made.out)

    def _columns_help(self, ref: Ref, made: Made) -> str:
        columns = made.columns or {}
        inside = next((name for name, type_ in columns.items() if ref.column in type_.fields), None)
        if inside is not None:
            return f"it is a field of {inside!r}: write {ref.step}.{inside}.{ref.column}"
        if not columns and made.signature is not None and made.signature.shape == "join":
            return "a join has no columns of its own: read those of its left and right side"
        return one_of(ref.column, tuple(columns), "columns")

    def _field(self, type_: Type, ref: Ref, path: Path) -> Type | None:
        nullable, shown = type_.optional, f"{ref.step}.{ref.column}"
        for name in ref.fields:
            if type_.kind == "any":
                return type_
            if type_.kind == "dict" and type_.item is not None:
                type_ = type_.item
            elif type_.kind == "record" and name in type_.fields:
                type_ = type_.fields[name]
            else:
                help = one_of(name, tuple(type_.fields), "fields") if type_.kind == "record" else ""
                self._problems.add(path, f"{shown!r} ({types.show(type_)}) has no field {name!r}", help)
                return None
            nullable, shown = nullable or type_.optional, f"{shown}.{name}"
        return types.optional(type_) if nullable else type_


def _record_help(made: Type, wanted: Type) -> str:
    if made.kind != "record" or wanted.kind != "record":
        return ""
    missing = [name for name in wanted.fields if name not in made.fields]
    if missing:
        return f"it has no {', '.join(missing)}"
    wrong = next(name for name, type_ in wanted.fields.items() if not types.assignable(made.fields[name], type_))
    return f"its {wrong} is {types.show(made.fields[wrong])}, not {types.show(wanted.fields[wrong])}"


def _null(type_: Type, ref: Ref) -> Type:
    return types.optional(type_) if ref.optional else type_
