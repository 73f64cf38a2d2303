"""The sections beside the steps: ``[models]``, ``[defaults]``, ``[slo]``, ``[[triggers]]``, and tables steps share."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path as FilePath
from typing import Any

from sage_core.common.errors import BadValue
from sage_core.common.host import Host
from sage_core.common.records import ModelSpec
from sage_core.kernel.dataflow import layout, params
from sage_core.kernel.dataflow.diagnostics import Problems, one_of
from sage_core.kernel.dataflow.expressions import template_refs
from sage_core.kernel.dataflow.graph import Param, Trigger
from sage_core.kernel.dataflow.keys import unstorable
from sage_core.kernel.dataflow.settings import Settings
from sage_core.kernel.dataflow.spans import Path

_SINGULAR = {"step": "steps", "param": "params", "model": "models", "output": "outputs", "trigger": "triggers"}


def top(document: Settings) -> dict[str, Any]:
    """Check the keys at the top of the file; returns what its plain keys, ``[defaults]`` and ``[slo]`` give."""
    document.only(layout.TOP, "the workflow", _explain_top)
    if "sage" not in document:
        document.problems.add((), "the workflow does not say which format it has", "write sage = 1 at the top")
    document.section("profile")
    return document.values(layout.TOP, "the workflow")


def _explain_top(key: str) -> tuple[str, str] | None:
    if key in _SINGULAR:
        return f"unknown key {key!r} in the workflow", f"write [{_SINGULAR[key]}.NAME]"
    return None


def models(document: Settings, host: Host, folder: Callable[[Path], FilePath]) -> dict[str, ModelSpec]:
    """Check ``[models]``; everything but backend, source and needs belongs to the backend."""
    found = {}
    keys = layout.model(tuple(host.backends))
    for name, settings in document.sections("models", "model"):
        given = settings.values(keys, f"model {name!r}")
        _check_values(settings)
        found[name] = _model(name, settings, given, folder((*settings.path, "source")))
    return found


def _model(name: str, settings: Settings, given: Mapping[str, Any], folder: FilePath) -> ModelSpec:
    """The record of one model; a `source` that is a relative path starts at `folder`."""
    source = given.get("source", "")
    local = source and ":" not in source and "${" not in source
    if local and (source.startswith(("./", "../")) or (folder / source).exists()):
        source = str((folder / source).absolute())
    options = {key: value for key, value in settings.table.items() if key not in ("backend", "source", "needs")}
    return ModelSpec(
        name=name, backend=given.get("backend", ""), source=source, options=options, needs=given.get("needs", {})
    )


def known_models(
    known: Mapping[str, Mapping[str, Any]], host: Host, folder: FilePath
) -> tuple[dict[str, ModelSpec], dict[str, str]]:
    """Models of sage.toml, and what is wrong with those that cannot be used (told only where a step names one)."""
    usable, broken = {}, {}
    keys = layout.model(tuple(host.backends))
    for name, table in known.items():
        backend = str(table.get("backend", ""))
        if backend not in host.backends:
            missing = f"no backend is named {backend!r}" if backend else "it names no backend"
            broken[name] = f"{missing}; {one_of(backend, tuple(host.backends), 'installed backends')}"
            continue
        settings = Settings(table, ("models", name), Problems())
        spec = _model(name, settings, settings.values(keys, f"model {name!r}"), folder)
        if settings.problems:
            broken[name] = settings.problems[0].message
        else:
            usable[name] = spec
    return usable, broken


def triggers(document: Settings, declared: Mapping[str, Param]) -> tuple[Trigger, ...]:
    """Check ``[[triggers.cron]]`` and ``[[triggers.http]]``."""
    section = document.section("triggers")
    section.only(layout.TRIGGERS, "[triggers]")
    found: list[Trigger] = []
    routes: set[tuple[str, str]] = set()
    for kind in layout.TRIGGERS:
        entries = section.table.get(kind, [])
        if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
            section.add(kind, f"triggers.{kind} is a list of tables", f"write [[triggers.{kind}]]")
            continue
        for index, entry in enumerate(entries):
            settings = Settings(entry, (*section.path, kind, index), section.problems)
            found.append(_cron(settings, declared) if kind == "cron" else _http(settings, routes))
    return tuple(found)


def _cron(settings: Settings, declared: Mapping[str, Param]) -> Trigger:
    settings.only(layout.CRON, "[[triggers.cron]]")
    given = settings.values(layout.CRON, "a cron trigger")
    values = settings.section("params")
    for name, value in values.table.items():
        if name not in declared:
            values.add(name, f"no param is named {name!r}", one_of(name, tuple(declared), "params"), "key")
            continue
        if declared[name].secret:
            values.add(name, f"param {name!r} is secret; it is read from {params.variable(name)}", part="key")
            continue
        try:
            params.coerce(declared[name], value)
        except BadValue as error:
            values.problems.bad((*values.path, name), error)
    missing = [name for name, param in declared.items() if param.required and not param.secret and name not in values]
    if missing:
        settings.problems.add(
            settings.path,
            f"the trigger gives no value to {', '.join(map(repr, missing))}",
            f"write params = {{ {missing[0]} = … }}, or give the param a default",
            "key",
        )
    plain = {"schedule": "", "timezone": "UTC", "overlap": "skip", "catchup": "none"}
    return Trigger(kind="cron", settings={**plain, **given, "params": dict(values.table)})


def _http(settings: Settings, routes: set[tuple[str, str]]) -> Trigger:
    settings.only(layout.HTTP, "[[triggers.http]]")
    given = {"path": "/", "method": "POST", **settings.values(layout.HTTP, "an http trigger")}
    path, method = route = given["path"], given["method"]
    if route in routes:
        settings.add("path", f"two triggers answer {method} {path}", "give one of them another path or method")
    routes.add(route)
    return Trigger(kind="http", settings=given)


def _check_values(settings: Settings) -> None:
    """Report what of a model cannot be stored, and templates of a namespace that has no meaning there."""
    for key, value in settings.table.items():
        if problem := unstorable(value):
            settings.add(key, problem)
            continue
        try:
            wrong = [f"${{{space}.{name}}}" for space, name in template_refs(value) if space not in ("env", "secret")]
        except BadValue as error:
            settings.problems.bad((*settings.path, key), error)
            continue
        if wrong:
            settings.add(key, f"{wrong[0]} cannot be used in a model", "it may hold ${env.…} and ${secret.…}")
