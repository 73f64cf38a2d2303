"""A graph bound to its parameters: what a worker needs to run any job of a run, stored once with the run.

Digests name what decides a result: the operator's code, its options, its wiring, the model behind it. They never
contain a run id, a row id or a secret's value.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import msgspec

from sage_core.common.errors import BadValue, ModelError, UnknownName
from sage_core.common.host import Host
from sage_core.common.operators import MARK, OperatorInfo
from sage_core.common.records import ModelSpec, Record
from sage_core.kernel.dataflow import identity
from sage_core.kernel.dataflow.bind import bind_model, bind_options
from sage_core.kernel.dataflow.expressions import Secret, template_refs
from sage_core.kernel.dataflow.graph import Graph, Step
from sage_core.kernel.dataflow.plan import Stage, cut
from sage_core.kernel.runtime.values import FORMAT, digest

#: What SAGE itself is pinned under.
SAGE = "sage-core"
#: Key under which a stored option stands for a secret's template.
_SECRET = "$secret"

#: Identifies what serves a model, without loading it.
Identify = Callable[[ModelSpec], str]


class Prepared(Record):
    """Everything about a run that does not change while it runs."""

    graph: Graph
    stages: dict[str, Stage]
    #: Parameter values; a secret one is its template.
    params: dict[str, Any]
    #: Per step, options with templates filled; secrets stay references.
    options: dict[str, dict[str, Any]]
    models: dict[str, ModelSpec]
    #: Per step, the digest of what decides its results besides its rows.
    digests: dict[str, str]
    #: Per step, the same without its wiring: what decides the result of one row.
    row_digests: dict[str, str]
    #: Operators that no plugin offers (module-level functions given to the fluent API) → ``module:attribute``.
    local: dict[str, str] = {}
    #: The code of SAGE and of the operators, by package: a version of SAGE, and code keys.
    pins: dict[str, str] = {}

    def encode(self) -> bytes:
        """Bytes for the store."""
        return msgspec.msgpack.encode(self)

    def stage_digest(self, stage: Stage, run_id: str) -> str:
        """Names the code and settings of a stage; the run takes part when results must not outlive it."""
        own = (*(self.digests[name] for name in stage.steps), *stage.writes, "?", *stage.marks)
        return digest(str(FORMAT), *own) if stage.pure else digest(str(FORMAT), run_id, *own)

    def salted(self, steps: Iterable[str], salt: str) -> Prepared:
        """The same, with results of these steps told apart from whatever was computed without this salt."""
        names = set(steps)

        def anew(digests: Mapping[str, str]) -> dict[str, str]:
            return {name: digest("anew", old, salt) if name in names else old for name, old in digests.items()}

        return msgspec.structs.replace(self, digests=anew(self.digests), row_digests=anew(self.row_digests))

    def options_of(self, step: Step, cell: Mapping[str, Any]) -> dict[str, Any]:
        """A step's options with those of one matrix cell, secrets as `Secret` placeholders."""
        return {name: _unpack(value) for name, value in {**self.options[step.name], **cell}.items()}

    def param_digest(self, column: str) -> str:
        """Digest of one parameter's value, by its column (``params.name``)."""
        return digest(msgspec.msgpack.encode(self.params.get(column.split(".", 1)[1])))


def decode_prepared(data: bytes) -> Prepared:
    """Undo `Prepared.encode`."""
    return msgspec.msgpack.decode(data, type=Prepared)


def prepare(
    graph: Graph,
    params: Mapping[str, Any],
    host: Host,
    *,
    models: Mapping[str, ModelSpec],
    identify: Identify,
    run_id: str,
    environ: Mapping[str, str],
) -> Prepared:
    """Fill every template, find every model, digest every step; raises before anything runs."""
    spaces: dict[str, Mapping[str, Any]] = {
        "params": params,
        "env": environ,
        "run": {"id": run_id, "name": graph.name},
    }
    base = Path(graph.base)
    options = {name: _pack(bind_options(step, step.options, spaces, base)) for name, step in graph.steps.items()}
    graph = msgspec.structs.replace(
        graph, steps={name: _with_cells(step, spaces, base) for name, step in graph.steps.items()}
    )
    bound: dict[str, ModelSpec] = {}
    identities: dict[str, str] = {}
    digests, row_digests = {}, {}
    sources: dict[str, str] = {}
    pins = {SAGE: version(SAGE)}
    for name, step in graph.steps.items():
        used = used_models(step, options[name])
        for model in used:
            if model not in models:
                raise _unknown_model(model, models)
            if model not in identities:
                bound[model] = bind_model(models[model], environ)
                identities[model] = identify(bound[model])
        code = "join" if step.join else identity.code_key(host.operators[step.use], sources)
        if not step.join:
            pins[package_of(step.use, host.operators[step.use])] = code
        settings = msgspec.json.encode(options[name], order="deterministic")
        row_digests[name] = digest(step.use, code, settings, *(identities[model] for model in used))
        digests[name] = digest(row_digests[name], _wiring(step))
    return Prepared(
        graph=graph,
        stages=cut(graph),
        params={name: _pack(value) for name, value in params.items()},
        options=options,
        models={**models, **bound},
        digests=digests,
        row_digests=row_digests,
        pins=pins,
        local={step.use: host.operators.target(step.use) for step in graph.steps.values() if _is_local(step, host)},
    )


def package_of(use: str, target: object) -> str:
    """What an operator's code is pinned under: its package, or its own name where it names its version itself."""
    info: OperatorInfo = getattr(target, MARK)
    return use if info.version is not None else str(getattr(target, "__module__", use)).partition(".")[0]


def _with_cells(step: Step, spaces: Mapping[str, Mapping[str, Any]], base: Path) -> Step:
    """The step with the templates of its matrix filled."""
    cells = tuple(_pack(bind_options(step, cell, spaces, base)) for cell in step.matrix)
    return msgspec.structs.replace(step, matrix=cells)


def used_models(step: Step, options: Mapping[str, Any]) -> list[str]:
    """Models that a step names, in any cell of its matrix."""
    return sorted({str(v) for o in step.signature.options if o.is_model for v in _values(step, options, o.name) if v})


def _values(step: Step, options: Mapping[str, Any], name: str) -> list[Any]:
    return [cell[name] for cell in step.matrix if name in cell] or [options.get(name)]


def _is_local(step: Step, host: Host) -> bool:
    return step.join is None and host.operators.origin(step.use) == "local"


def _wiring(step: Step) -> bytes:
    return msgspec.json.encode(
        (step.name, step.ports, step.rows, step.when, step.matrix, step.repeat, step.join, step.on_error, step.out)
    )


def _unknown_model(model: str, models: Mapping[str, ModelSpec]) -> Exception:
    if not models:
        return ModelError(model, "no model is defined", f'add [models.{model}] with backend = "…" to the workflow')
    return UnknownName("model", model, tuple(models), f"Define [models.{model}], or add one: sage models add {model} …")


def _pack(value: Any) -> Any:
    if isinstance(value, Secret):
        return {_SECRET: value.template}
    if isinstance(value, dict):
        return {key: _pack(item) for key, item in value.items()}
    return [_pack(item) for item in value] if isinstance(value, list) else value


def _unpack(value: Any) -> Any:
    if isinstance(value, dict):
        if value.keys() == {_SECRET}:
            return Secret(template=value[_SECRET])
        return {key: _unpack(item) for key, item in value.items()}
    return [_unpack(item) for item in value] if isinstance(value, list) else value


def secret_values(prepared: Prepared, environ: Mapping[str, str]) -> tuple[str, ...]:
    """Values of all secrets that options and models refer to and that are set, longest first."""
    templates = _secrets([*prepared.options.values(), *(list(step.matrix) for step in prepared.graph.steps.values())])
    templates += [v for model in prepared.models.values() for v in model.options.values() if isinstance(v, str)]
    names = {name for template in templates for space, name in _refs(template) if space == "secret"}
    return tuple(sorted({environ.get(name, "") for name in names} - {""}, key=len, reverse=True))


def _refs(text: str) -> tuple[tuple[str, str], ...]:
    try:
        return template_refs(text)
    except BadValue:
        return ()  # A model's option that is no template of ours: its backend knows what it means.


def _secrets(value: Any) -> list[str]:
    """Templates of the secrets anywhere inside stored options."""
    if isinstance(value, Mapping):
        if value.keys() == {_SECRET}:
            return [value[_SECRET]]
        return [template for item in value.values() for template in _secrets(item)]
    return [template for item in value for template in _secrets(item)] if isinstance(value, list) else []
