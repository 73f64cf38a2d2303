"""From a draft to a checked step: its inputs looked up, its grain found, its columns and options settled."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import msgspec

from sage_core.kernel.dataflow import layout, types
from sage_core.kernel.dataflow.columns import Columns, Found, Made
from sage_core.kernel.dataflow.diagnostics import Problems, one_of
from sage_core.kernel.dataflow.draft import Draft, Input
from sage_core.kernel.dataflow.grains import Grains, Source, called
from sage_core.kernel.dataflow.graph import RUN, Binding, Port, Ref, Repeat, Signature, Step, Type
from sage_core.kernel.dataflow.join import JoinCheck
from sage_core.kernel.dataflow.keys import TEXT, Key
from sage_core.kernel.dataflow.options import Options, join_path
from sage_core.kernel.dataflow.spans import Path
from sage_core.kernel.dataflow.spec import Document


class _Reading(msgspec.Struct):
    """What a step's inputs turned out to be."""

    bindings: dict[str, Binding] = {}
    #: Looked-up references by port, those of `when` under "".
    found: dict[str, list[Found]] = {}
    #: Rows of each port, of `when` ("") and of `rows` ("rows").
    sources: dict[str, list[Source]] = {}
    #: Whether every reference was found and its rows are known.
    known: bool = True

    def rows(self, *ports: str) -> list[Source]:
        return [source for port in ports for source in self.sources.get(port, ())]


class Resolver:
    """Resolves steps one by one, each after what it reads."""

    def __init__(
        self, document: Document, columns: Columns, grains: Grains, options: Options, problems: Problems
    ) -> None:
        self._document, self._columns, self._grains = document, columns, grains
        self._options, self._problems = options, problems
        #: Legal and probably not meant.
        self.warnings: list[str] = []

    def expect(self, drafts: Iterable[Draft]) -> None:
        """Name all steps before the first is resolved: candidates for a misspelt name, and the members of a cycle."""
        for draft in drafts:
            found = draft.signature
            made = Made(signature=found, columns=_made(found, _Reading(), ())) if found else Made()
            self._columns.steps[draft.name] = made

    def resolve(self, draft: Draft, cyclic: bool = False) -> Step | None:
        """Check one step and remember what it makes; None when it is not known well enough.

        `cyclic`: it is part of a cycle, so its rows stay unknown although its columns are not.
        """
        for name, path in draft.after:
            self._columns.wait(name, path)
        signature = draft.signature
        if signature is None:
            self._read(draft, {})
            self._columns.steps[draft.name] = Made()
            return None
        if signature.shape == "join":
            return self._join(draft, signature, cyclic)
        reading = self._read(draft, {port.name: port for port in signature.ports})
        options, cells = self._options.bind(draft, signature), self._options.cells(draft, signature)
        columns = _made(signature, reading, cells)
        repeat = self._repeat(draft, signature)
        grain, out = (None, None) if cyclic or not reading.known else self._rows(draft, signature, reading, bool(cells))
        self._columns.steps[draft.name] = Made(signature=signature, columns=columns, out=out)
        if grain is None or out is None:
            return None
        return self._step(
            draft,
            signature,
            grain=grain,
            out=out,
            # In the operator's order, whichever order the keys have: equal workflows have equal bytes.
            ports={port.name: bound for port in signature.ports if (bound := reading.bindings.get(port.name))},
            options=options,
            columns=columns,
            rows=tuple(name for name, _ in draft.rows),
            when=draft.when.text if draft.when else "",
            when_refs=tuple(found.ref for found in reading.found.get("", ())),
            matrix=cells,
            repeat=repeat,
        )

    def _join(self, draft: Draft, signature: Signature, cyclic: bool) -> Step | None:
        resolved = JoinCheck(draft, self._columns, self._grains, self._problems).resolve()
        out = resolved[1] if resolved and not cyclic else None
        self._columns.steps[draft.name] = Made(signature=signature, columns={}, out=out)
        if resolved is None or out is None:
            return None
        return self._step(draft, signature, grain=out, out=out, join=resolved[0])

    def _step(self, draft: Draft, signature: Signature, **rest: Any) -> Step:
        return Step(
            name=draft.name,
            use=draft.use,
            signature=signature,
            after=tuple(name for name, _ in draft.after),
            **draft.kept,
            **rest,
        )

    def _read(self, draft: Draft, ports: dict[str, Port]) -> _Reading:
        reading = _Reading()
        inside = (*draft.path, "in")
        written = draft.settings.section("in").table
        # What could not be read may name any rows.
        reading.known = (
            all(name in draft.inputs for name in written)
            and ("when" in draft.settings.table) is (draft.when is not None)
            and ("rows" in draft.settings.table) is bool(draft.rows)
        )
        for name in written:
            if name not in ports and draft.signature is not None:
                self._no_port(name, (*inside, name), draft, draft.signature)
        for name, given in draft.inputs.items():
            port = ports.get(name)
            if given.refs:
                self._references(reading, name, given, port, draft)
            else:
                reading.bindings[name] = self._literal(given.value, port, (*inside, name, "value"))
        for name, port in ports.items():
            if port.required and name not in {*written, *draft.misplaced()}:
                shown = f"{draft.use!r} needs the port {name!r} ({types.show(port.type)})"
                self._problems.add(draft.path, shown, f'write in = {{ {name} = "step.column" }}', "key")
                reading.known = False
        for ref in draft.when.refs if draft.when else ():
            self._look_up(reading, "", ref, (*draft.path, "when"))
        for name, path in draft.rows:
            self._keep(reading, "rows", self._columns.rows(name, path))
        return reading

    def _references(self, reading: _Reading, name: str, given: Input, port: Port | None, draft: Draft) -> None:
        present = draft.when.present if draft.when else frozenset()
        literal = port is None or port.type.kind in ("str", "any", "literal")
        for ref, path in given.refs:
            found = self._look_up(reading, name, ref, path, literal)
            if found is not None and port is not None:
                self._columns.fits(found, port, draft.use, path, present)
        reading.bindings[name] = Binding(refs=tuple(found.ref for found in reading.found.get(name, ())))

    def _look_up(self, reading: _Reading, port: str, ref: Ref, path: Path, literal: bool = False) -> Found | None:
        found = self._columns.find(ref, path, literal=literal)
        self._keep(reading, port, self._columns.source(found, path) if found else None)
        if found is not None:
            reading.found.setdefault(port, []).append(found)
        return found

    def _keep(self, reading: _Reading, port: str, source: Source | None) -> None:
        if source is None:
            reading.known = False
        else:
            reading.sources.setdefault(port, []).append(source)

    def _no_port(self, name: str, path: Path, draft: Draft, signature: Signature) -> None:
        if any(option.name == name for option in signature.options):
            message, help = f"{name!r} is an option of {draft.use!r}, not a port", f"write with = {{ {name} = … }}"
        else:
            message = f"{draft.use!r} has no port {name!r}"
            help = one_of(name, [port.name for port in signature.ports], "ports")
        self._problems.add(path, message, help, "key")

    def _literal(self, value: Any, port: Port | None, path: Path) -> Binding:
        if port is not None and (problem := types.value_problem(value, port.type)):
            self._problems.add(path, f"port {port.name!r}: {problem}")
        if port is not None and port.is_path:
            value = join_path(value, self._document.folder(path))
        return Binding(value=value)

    def _rows(
        self, draft: Draft, signature: Signature, reading: _Reading, matrix: bool
    ) -> tuple[str | None, str | None]:
        if signature.shape == "collect":
            return self._collect(draft, signature, reading, matrix)
        if draft.per:
            message = f"'per' has no effect: {draft.use!r} does not collect rows"
            draft.settings.add("per", message, "only operators with a Dataset port, or a fold, do", "key")
        grain = self.deepest(reading.rows(*reading.sources))
        if grain is None:
            return None, None
        for port in signature.ports:
            source = next((source for source in reading.rows(port.name) if source.grain != RUN), None)
            if signature.batched and port.many == "one" and source is not None:
                message = (
                    f"port {port.name!r} of {draft.use!r} takes one value for the whole batch, but {source.shown!r}"
                )
                self._problems.add(source.path, f"{message} has {called(source.grain)}", "feed it a param or a collect")
        opens = matrix or signature.shape == "expand"
        return grain, self._grains.open(draft.name, grain) if opens else grain

    def _collect(
        self, draft: Draft, signature: Signature, reading: _Reading, matrix: bool
    ) -> tuple[str | None, str | None]:
        groups = [port.name for port in signature.ports if port.many == "dataset"]
        fixed = [port.name for port in signature.ports if port.many != "dataset"]
        grain = self.deepest(reading.rows(*groups, "rows"))
        at = self._columns.rows(draft.per, (*draft.path, "per")) if draft.per else Source(grain=RUN, shown="", path=())
        if grain is None or at is None:
            return None, None
        if at.grain not in self._grains.lineage(grain):
            above = sorted(self._grains.lineage(grain) - {RUN, grain})
            message = f"cannot collect per {draft.per!r}: {called(grain)} do not come from it"
            draft.settings.add("per", message, one_of(draft.per, above, "they come from"))
            return None, None
        if at.grain != RUN and (joined := self._grains.joined(grain, at.grain)):
            message = f"cannot collect per {draft.per!r}: the join {joined!r} lies between, and brings its rows anew"
            draft.settings.add("per", message, f'collect per "{joined}", or to the run')
            return None, None
        if at.grain == grain != RUN:
            self.warnings.append(f"step {draft.name!r} collects groups of one row: it collects {called(grain)} per row")
        stray = self._grains.outside(reading.rows(*fixed, ""), at.grain)
        if stray is not None:
            group = f"for each of {called(at.grain)}" if at.grain != RUN else "in the whole run"
            message = f"{stray.shown!r} has {called(stray.grain)}, but this step runs once {group}"
            help = "only Dataset ports take many rows; a condition on rows belongs to a step before this one"
            self._problems.add(stray.path, message, help)
        return grain, self._grains.open(draft.name, at.grain) if matrix else at.grain

    def deepest(self, sources: Sequence[Source]) -> str | None:
        """The grain that all others are ancestors of; None when two are unrelated, which is reported."""
        found = self._grains.deepest(sources)
        if isinstance(found, str):
            return found
        one, two = found
        message = (
            f"unrelated rows: {one.shown!r} has {called(one.grain)} and {two.shown!r} has {called(two.grain)}, "
            "and neither comes from the other"
        )
        both = self._grains.below(one.grain, two.grain)
        help = f'add rows = "{both}"' if both else 'pair them with use = "join", or collect one of them first'
        self._problems.add(two.path, message, help)
        return None

    def _repeat(self, draft: Draft, signature: Signature) -> Repeat | None:
        if "repeat" not in draft.settings:
            return None
        settings = draft.settings.section("repeat")
        settings.only(layout.REPEAT, "'repeat'")
        if signature.shape != "map":
            message = f"{draft.use!r} cannot be repeated: only a step with one row out for each row in can"
            draft.settings.add("repeat", message, part="key")
            return None
        given = settings.values(layout.REPEAT, "'repeat'")
        until = given.get("until")
        own = tuple(signature.columns)
        for ref in until.refs if until else ():
            if ref.column or ref.step not in own:
                name = ref.step if not ref.column else f"{ref.step}.{ref.column}"
                settings.add(
                    "until", f"'until' reads the step's own columns, not {name!r}", one_of(name, own, "columns")
                )
        feed = settings.section("feed")
        columns = feed.values(dict.fromkeys(feed.table, Key(TEXT)), "'feed'")
        ports = {port.name: port for port in signature.ports}
        for name in feed.table:
            column = columns.get(name, "")
            if name not in ports:
                feed.add(name, f"{draft.use!r} has no port {name!r}", one_of(name, tuple(ports), "ports"), "key")
            elif column not in own:
                feed.add(name, f"{draft.use!r} has no column {column!r}", one_of(column, own, "columns"))
            elif not types.assignable(signature.columns[column], ports[name].type):
                made, wanted = types.show(signature.columns[column]), types.show(ports[name].type)
                feed.add(name, f"port {name!r} takes {wanted}, but column {column!r} is {made}")
        return Repeat(max=given.get("max", 1), until=until.text if until else "", feed=dict(feed.table))


def _made(signature: Signature, reading: _Reading, cells: tuple[dict[str, Any], ...]) -> dict[str, Type]:
    """The columns of a step: a filter re-emits its inputs as they are, a matrix adds its options."""
    columns = dict(signature.columns)
    if signature.shape == "filter":
        columns = {}
        for port in signature.ports:
            known = [found.type for found in reading.found.get(port.name, ()) if found.type is not None]
            columns[port.name] = known[0] if len(known) == 1 else port.type
    options = {option.name: option.type for option in signature.options}
    return columns | {name: options[name] for name in (cells[0] if cells else ())}
