"""One step as written: its keys checked, its references parsed, and nothing known yet of the other steps."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal

import msgspec

from sage_core.common.errors import BadSignature, BadValue, PluginError
from sage_core.common.host import Host
from sage_core.kernel.dataflow import layout, references, signature
from sage_core.kernel.dataflow.diagnostics import one_of
from sage_core.kernel.dataflow.expressions import Expression
from sage_core.kernel.dataflow.graph import Ref, Retry, Signature
from sage_core.kernel.dataflow.keys import kind, unstorable
from sage_core.kernel.dataflow.settings import Explain, Settings
from sage_core.kernel.dataflow.spans import Path

#: Fields of `Step` that are a key of its table, as it is read.
_KEPT = ("on_error", "max_errors", "timeout", "cache", "partition", "needs", "limit", "checkpoint")
#: Words that stand where a step's name would be.
RESERVED = (references.PARAMS, "run", "env", "secret")
JOIN = Signature(operator="join", shape="join")
_LATER = {
    "key_by": "use `per` with an operator that takes a Dataset",
    "foreach": "use an operator that returns an Iterator",
}


class Input(msgspec.Struct):
    """What was written for one port: references with their places, or a literal."""

    refs: tuple[tuple[Ref, Path], ...] = ()
    value: Any = None


class Draft(msgspec.Struct):
    """A step whose own keys have been checked."""

    name: str
    settings: Settings
    use: str = ""
    #: None: the operator is unknown, so nothing can be said about what the step makes.
    signature: Signature | None = None
    inputs: dict[str, Input] = {}
    rows: tuple[tuple[str, Path], ...] = ()
    after: tuple[tuple[str, Path], ...] = ()
    when: Expression | None = None
    per: str = ""
    #: Join: pairs of references with their place.
    on: tuple[tuple[Ref, Ref, Path], ...] = ()
    how: Literal["inner", "left"] = "inner"
    #: Fields of `Step` that no other step has a say in.
    kept: dict[str, Any] = {}

    @property
    def path(self) -> Path:
        """Where the step stands."""
        return self.settings.path

    def misplaced(self) -> set[str]:
        """Ports and options written in the wrong table or misspelt: reported there, so not reported as missing."""
        signature = self.signature
        if signature is None:
            return set()
        ports, options = [port.name for port in signature.ports], [option.name for option in signature.options]
        given, taken = self.settings.section("in").table, self.settings.section("with").table
        found = set(self.settings.table) | (set(given) & set(options)) | (set(taken) & set(ports))
        for written, known in ((given, ports), (taken, options)):
            strangers = (name for name in written if name not in known)
            found.update(close for name in strangers for close in difflib.get_close_matches(name, known, n=1))
        return found

    def reads(self) -> Iterator[tuple[str, Path]]:
        """Names of the steps that must come first, and where each is named."""
        for given in self.inputs.values():
            yield from ((ref.step, path) for ref, path in given.refs)
        for left, right, path in self.on:
            yield from ((left.step, path), (right.step, path))
        if self.when:
            yield from ((ref.step, (*self.path, "when")) for ref in self.when.refs)
        yield from self.rows
        if self.per:
            yield self.per, (*self.path, "per")
        yield from self.after


def draft(name: str, settings: Settings, host: Host, defaults: Mapping[str, Any]) -> Draft:
    """Check what can be checked of a step by itself; `defaults` is what ``[defaults]`` gives."""
    joins = settings.table.get("use") == "join"
    keys, what = (layout.JOIN, "a join") if joins else (layout.STEP, f"step {name!r}")
    given = settings.values(keys, what)
    made = Draft(name=name, settings=settings, use=given.get("use", ""))
    made.signature = _signature(made.use, settings, host)
    settings.only(keys, what, _explain(made.signature, joins))
    if not joins:
        bound = settings.section("in")
        made.inputs = {port: found for port in bound.table if (found := read_input(bound, port)) is not None}
    made.when, made.per, made.how = given.get("when"), given.get("per", ""), given.get("how", "inner")
    made.rows, made.after = _names(settings, "rows", given), _names(settings, "after", given)
    inherited = {key: value for key, value in defaults.items() if key in keys}
    made.kept = _kept(settings, inherited, given)
    return made


def _kept(settings: Settings, inherited: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    both = {**inherited, **given}
    kept = {key: both[key] for key in _KEPT if key in both}
    if "max_errors" in kept and kept.get("on_error") != "skip":
        message = "'max_errors' has no effect when the first error fails the step"
        settings.add("max_errors", message, 'add on_error = "skip"')
    kept["retry"] = Retry(**{**inherited.get("retry", {}), **given.get("retry", {})})
    kept["batch_max"] = given.get("batch", {}).get("max", 0)
    return kept


def _signature(use: str, settings: Settings, host: Host) -> Signature | None:
    if use == "join":
        return JOIN
    if not use:
        if settings.table.get("use") == "":
            settings.add("use", "'use' is empty", "name an operator")
        return None
    if use.startswith("workflow:"):
        help = 'take its steps into this file: include = ["FILE"]'
        settings.add("use", "a workflow used as an operator is not supported yet", help)
    elif use not in host.operators:
        settings.add("use", f"no operator is named {use!r}", _who_has(use, (*host.operators, "join")))
    else:
        try:
            return signature.of(host.operators[use])
        except PluginError as error:
            plugin, problem, _ = error.args
            settings.add("use", problem, f"the operator comes from plugin {plugin!r}: sage plugins info {plugin}")
        except BadSignature as error:
            _, problem, help = error.args
            settings.add("use", f"operator {use!r}: {problem}", f"its author can mend it: {help}" if help else "")
    return None


def _who_has(use: str, installed: Sequence[str]) -> str:
    """Help for an operator that is not there: the close one, or the plugin that its name begins with."""
    space, dot, _ = use.partition(".")
    if not dot or any(name.startswith(f"{space}.") for name in installed):
        return one_of(use, installed, "installed")
    return f"no installed plugin offers {space}.…; bundled ones are installed by name: sage plugins install {space}"


def _explain(signature: Signature | None, joins: bool) -> Explain:
    ports = [port.name for port in signature.ports] if signature else []
    options = [option.name for option in signature.options] if signature else []

    def explain(key: str) -> tuple[str, str] | None:
        if key in _LATER:
            return f"{key!r} is not supported yet", _LATER[key]
        if key in ports:
            return f"{key!r} is a port of the operator", f'write in = {{ {key} = "step.column" }}'
        if key in options:
            return f"{key!r} is an option of the operator", f"write with = {{ {key} = … }}"
        if joins and key in layout.STEP:
            return f"a join has no {key!r}", "put it on the step that reads the joined rows"
        if key in ("on", "how"):
            return f"{key!r} belongs to a join", 'write use = "join"'
        return None

    return explain


def _names(settings: Settings, key: str, given: Mapping[str, Any]) -> tuple[tuple[str, Path], ...]:
    single = isinstance(settings.table.get(key), str)
    path = (*settings.path, key)
    return tuple((name, path if single else (*path, index)) for index, name in enumerate(given.get(key, ())))


def read_input(settings: Settings, port: str) -> Input | None:
    """Read a reference, a merge of several, or ``{ value = … }``."""
    given, path = settings.table[port], (*settings.path, port)
    if isinstance(given, dict) and set(given) == {"value"}:
        if problem := unstorable(given["value"]):
            settings.problems.add((*path, "value"), problem)
            return None
        return Input(value=given["value"])
    if isinstance(given, str):
        texts: list[tuple[str, Path]] = [(given, path)]
    elif isinstance(given, list) and given and all(isinstance(item, str) for item in given):
        texts = [(item, (*path, index)) for index, item in enumerate(given)]
    else:
        spelled = references.literal(given) if isinstance(given, (bool, int, float, list)) else "…"
        help = f'write "step.column", or {{ value = {spelled} }} for a literal'
        settings.add(port, f"{port!r} takes a reference, not {kind(given)}", help)
        return None
    refs = []
    for text, place in texts:
        try:
            refs.append((references.parse(text), place))
        except BadValue as error:
            settings.problems.bad(place, error)
            return None
    for ref, place in refs[:-1]:
        if ref.optional:
            help = "leave the ? out; a merge takes the first that is present"
            message = f"{references.show(ref)!r} is never absent, so what follows is never read"
            settings.problems.add(place, message, help)
    return Input(refs=tuple(refs))
