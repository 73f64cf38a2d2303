"""The sections beside the steps: ``[models]``, ``[defaults]``, ``[slo]``, ``[[triggers]]``, and tables steps share."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path as FilePath
from typing import Any

from sage_core.common.errors import BadValue
from sage_core.common.host import Host
from sage_core.common.records import ModelSpec
from sage_core.kernel.dataflow import cron, params, units
from sage_core.kernel.dataflow.diagnostics import Problems, one_of
from sage_core.kernel.dataflow.expressions import template_refs
from sage_core.kernel.dataflow.graph import Param, Retry, Trigger
from sage_core.kernel.dataflow.settings import Settings, kind, unstorable
from sage_core.kernel.dataflow.spans import Path

TOP = (
    "sage", "name", "description", "params", "models", "defaults", "steps", "outputs", "slo", "include", "profile",
    "triggers",
)  # fmt: skip
_CAUSES = ("rate_limit", "timeout", "worker_lost", "error")
_TRIGGERS = {"cron": ("schedule", "timezone", "overlap", "catchup", "params"), "http": ("path", "method")}


def check_top(document: Settings) -> None:
    """Check the keys and the format number at the top of the file."""
    document.only(TOP, "the workflow", _explain_top)
    if "sage" not in document:
        document.problems.add((), "the workflow does not say which format it has", "write sage = 1 at the top")
    elif document.table["sage"] != 1 or isinstance(document.table["sage"], bool):
        document.add("sage", f"format {kind(document.table['sage'])} is unknown", "this version reads sage = 1")
    document.text("name")
    document.text("description")
    document.section("profile")


def _explain_top(key: str) -> tuple[str, str] | None:
    singular = {"step": "steps", "param": "params", "model": "models", "output": "outputs", "trigger": "triggers"}
    if key in singular:
        return f"unknown key {key!r} in the workflow", f"write [{singular[key]}.NAME]"
    return None


class Defaults:
    """``[defaults]``: what holds for every step that does not say otherwise."""

    def __init__(self, document: Settings) -> None:
        settings = document.section("defaults")
        settings.only(("timeout", "retry", "on_error"), "[defaults]")
        self.timeout = settings.seconds("timeout")
        self.retry = retry(settings, Retry())
        self.on_error = settings.choice("on_error", ("fail", "skip"), "fail")


def retry(settings: Settings, default: Retry) -> Retry:
    """``retry = { max, base, cap, on }``."""
    if "retry" not in settings:
        return default
    given = settings.table["retry"]
    if not isinstance(given, dict):
        settings.add("retry", f"'retry' is a table, not {kind(given)}", "write retry = { max = 3 }")
        return default
    table = settings.section("retry")
    table.only(("max", "base", "cap", "on"), "'retry'")
    for cause in (causes := table.texts("on", default.on)):
        if cause not in _CAUSES:
            table.add("on", f"{cause!r} is no cause that can be retried", one_of(cause, _CAUSES, "causes"))
    return Retry(
        max=table.count("max", default.max, 0),
        base=table.seconds("base", default.base) or 0.0,
        cap=table.seconds("cap", default.cap) or 0.0,
        on=causes,
    )


def needs(settings: Settings) -> dict[str, Any]:
    """``needs = { cpu, memory, gpu, labels }``: cores, bytes, devices, texts; only what is given."""
    table = settings.section("needs")
    table.only(("cpu", "memory", "gpu", "labels"), "'needs'")
    found: dict[str, Any] = {}
    cpu = table.number("cpu")
    if cpu is not None:
        found["cpu"] = cpu
        if cpu <= 0:
            table.add("cpu", f"'cpu' must be above 0, not {cpu:g}")
    if "memory" in table:
        found["memory"] = table.read("memory", units.size, 0)
    if "gpu" in table:
        found["gpu"] = table.count("gpu", 0, 0)
    if "labels" in table:
        found["labels"] = list(table.texts("labels"))
    return found


def models(document: Settings, host: Host, folder: Callable[[Path], FilePath]) -> dict[str, ModelSpec]:
    """Check ``[models]``; everything but backend, source and needs belongs to the backend."""
    found = {}
    for name, settings in document.sections("models", "model"):
        backend = ""
        if settings.need("backend", f"model {name!r}", one_of("", tuple(host.backends), "installed backends")):
            backend = settings.text("backend")
            if backend and backend not in host.backends:
                settings.add("backend", f"no backend is named {backend!r}", one_of(backend, tuple(host.backends)))
        _check_values(settings, ("env", "secret"), "a model")
        found[name] = model(name, settings, backend, folder((*settings.path, "source")))
    return found


def model(name: str, settings: Settings, backend: str, folder: FilePath) -> ModelSpec:
    """The record of one model; a `source` that is a relative path starts at `folder`."""
    source = settings.text("source")
    local = source and ":" not in source and "${" not in source
    if local and (source.startswith(("./", "../")) or (folder / source).exists()):
        source = str((folder / source).absolute())
    options = {key: value for key, value in settings.table.items() if key not in ("backend", "source", "needs")}
    return ModelSpec(name=name, backend=backend, source=source, options=options, needs=needs(settings))


def known_models(
    known: Mapping[str, Mapping[str, Any]], host: Host, folder: FilePath
) -> tuple[dict[str, ModelSpec], dict[str, str]]:
    """Models of sage.toml, and what is wrong with those that cannot be used (told only where a step names one)."""
    usable, broken = {}, {}
    for name, table in known.items():
        problems = Problems()
        settings = Settings(table, ("models", name), problems)
        backend = settings.text("backend")
        if backend not in host.backends:
            missing = f"no backend is named {backend!r}" if backend else "it names no backend"
            broken[name] = f"{missing}; {one_of(backend, tuple(host.backends), 'installed backends')}"
            continue
        spec = model(name, settings, backend, folder)
        if problems:
            broken[name] = problems[0].message
        else:
            usable[name] = spec
    return usable, broken


def end_to_end(document: Settings) -> float | None:
    """``[slo] end_to_end`` in seconds."""
    settings = document.section("slo")
    settings.only(("end_to_end",), "[slo]")
    return settings.seconds("end_to_end")


def triggers(document: Settings, declared: Mapping[str, Param]) -> tuple[Trigger, ...]:
    """Check ``[[triggers.cron]]`` and ``[[triggers.http]]``."""
    section = document.section("triggers")
    section.only(tuple(_TRIGGERS), "[triggers]")
    found: list[Trigger] = []
    routes: set[tuple[str, str]] = set()
    for kind_ in _TRIGGERS:
        entries = section.table.get(kind_, [])
        if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
            section.add(kind_, f"triggers.{kind_} is a list of tables", f"write [[triggers.{kind_}]]")
            continue
        for index, entry in enumerate(entries):
            settings = Settings(entry, (*section.path, kind_, index), section.problems)
            settings.only(_TRIGGERS[kind_], f"[[triggers.{kind_}]]")
            if kind_ == "cron":
                found.append(_cron(settings, declared))
            else:
                found.append(_http(settings, routes))
    return tuple(found)


def _cron(settings: Settings, declared: Mapping[str, Param]) -> Trigger:
    if settings.need("schedule", "a cron trigger", 'such as schedule = "0 3 * * *"'):
        settings.read("schedule", cron.parse, None)
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
    return Trigger(
        kind="cron",
        settings={
            "schedule": settings.table.get("schedule", ""),
            "timezone": settings.read("timezone", cron.check_zone, "UTC"),
            "overlap": settings.choice("overlap", ("skip", "queue", "cancel_previous"), "skip"),
            "catchup": settings.choice("catchup", ("none", "last", "all"), "none"),
            "params": dict(values.table),
        },
    )


def _http(settings: Settings, routes: set[tuple[str, str]]) -> Trigger:
    path = settings.text("path") if settings.need("path", "an http trigger", 'such as path = "/ask"') else "/"
    if not path.startswith("/") or any(char.isspace() for char in path):
        settings.add("path", f"{path!r} is not a path", "a path starts with / and has no spaces")
    method = settings.choice("method", ("GET", "POST", "PUT"), "POST")
    if (path, method) in routes:
        settings.add("path", f"two triggers answer {method} {path}", "give one of them another path or method")
    routes.add((path, method))
    return Trigger(kind="http", settings={"path": path, "method": method})


def _check_values(settings: Settings, spaces: tuple[str, ...], what: str) -> None:
    """Report values that cannot be stored, and templates of a namespace that has no meaning there."""
    for key, value in settings.table.items():
        if problem := unstorable(value):
            settings.add(key, problem)
            continue
        try:
            wrong = [f"${{{space}.{name}}}" for space, name in template_refs(value) if space not in spaces]
        except BadValue as error:
            settings.problems.bad((*settings.path, key), error)
            continue
        if wrong:
            allowed = " and ".join(f"${{{space}.…}}" for space in spaces)
            settings.add(key, f"{wrong[0]} cannot be used in {what}", f"it may hold {allowed}")
