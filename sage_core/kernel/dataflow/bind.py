"""Gives a checked graph its values: run parameters, and the options of a step once these are known."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from sage_core.common.errors import BadValue, UsageError, suggest
from sage_core.common.records import ModelSpec
from sage_core.kernel.dataflow import params, types
from sage_core.kernel.dataflow.expressions import Secret, fill, template_refs
from sage_core.kernel.dataflow.graph import Graph, Param, Step
from sage_core.kernel.dataflow.options import join_path


def bind_params(
    graph: Graph, given: Mapping[str, object], *, cwd: Path, environ: Mapping[str, str] | None = None
) -> dict[str, object]:
    """One value per declared param; raises `UsageError` with everything that is missing, unknown or wrong.

    `given` holds a command line's texts or JSON values; its relative paths start at `cwd`, those of defaults at the
    workflow's folder. A secret param is a `Secret`, read from its environment variable when it is used.
    """
    environ = os.environ if environ is None else environ
    problems: list[str] = []
    for name in given:
        if name not in graph.params:
            problems.append(f"the workflow {graph.name!r} has no param {name!r}.{suggest(name, tuple(graph.params))}")
    values: dict[str, object] = {}
    for name, param in graph.params.items():
        try:
            values[name] = _bind(param, given, Path(graph.base), cwd, environ)
        except BadValue as error:
            problems.append(error.problem + (f" ({error.help})" if error.help else ""))
    if problems:
        raise UsageError("\n".join(problems), _declared(graph))
    return values


def bind_options(
    step: Step, options: Mapping[str, Any], namespaces: Mapping[str, Mapping[str, Any]], base: Path
) -> dict[str, Any]:
    """A step's options, or one matrix cell of them: templates filled, paths joined to `base`, types checked.

    Secrets stay `Secret`. Raises `UsageError` naming the step and the option.
    """
    bound = {}
    known = {option.name: option for option in step.signature.options}
    for name, value in options.items():
        option = known[name]
        try:
            filled = fill(value, namespaces)
        except BadValue as error:
            raise UsageError(f"step {step.name!r}, option {name!r}: {error.problem}", error.help) from None
        if option.is_path:
            filled = join_path(filled, base)
        # A default is the operator's own affair, and a secret is a text that nobody has seen yet.
        exempt = (not option.required and value == option.default) or _holds_secret(filled)
        problem = "" if exempt else types.value_problem(filled, option.type)
        if problem:
            raise UsageError(f"step {step.name!r}, option {name!r}: {problem}")
        bound[name] = filled
    return bound


def bind_model(model: ModelSpec, environ: Mapping[str, str]) -> ModelSpec:
    """A model with the ``${env.X}`` of its source and options filled; secrets stay templates, for its backend."""
    written = [model.source, model.options]
    try:
        secrets = {name: f"${{secret.{name}}}" for space, name in template_refs(written) if space == "secret"}
        source, options = fill(written, {"env": environ, "secret": secrets})
    except BadValue as error:
        raise UsageError(f"model {model.name!r}: {error.problem}", error.help) from None
    return msgspec.structs.replace(model, source=str(source), options=options)


def _bind(param: Param, given: Mapping[str, object], base: Path, cwd: Path, environ: Mapping[str, str]) -> object:
    if param.secret:
        return _secret(param, given, environ)
    if param.name in given and not (given[param.name] is None and not param.required):
        value = params.coerce(param, given[param.name])
        return join_path(value, cwd) if param.type == "path" else value
    if param.default is None and param.required:
        raise BadValue(f"param {param.name!r} is missing", f"--param {param.name}=…")
    value = params.coerce(param, param.default) if isinstance(param.default, int | float) else param.default
    return join_path(value, base) if param.type == "path" else value


def _secret(param: Param, given: Mapping[str, object], environ: Mapping[str, str]) -> object:
    name = params.variable(param.name)
    if param.name in given:
        raise BadValue(f"param {param.name!r} is secret and is not given on the command line", f"export {name}=…")
    if name in environ:
        return Secret(template=f"${{secret.{name}}}")
    if param.required:
        raise BadValue(f"param {param.name!r} is missing", f"it is secret: export {name}=…")
    return None


def _declared(graph: Graph) -> str:
    lines = ["params:"] if graph.params else ["it declares no params"]
    for param in graph.params.values():
        default = "optional" if param.default is None else f"default {param.default!r}"
        about = f": {param.description}" if param.description else ""
        lines.append(f"    {param.name} ({param.type}, {'required' if param.required else default}){about}")
    return "\n".join(lines)


def _holds_secret(value: object) -> bool:
    inside = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return isinstance(value, Secret) or any(map(_holds_secret, inside))
