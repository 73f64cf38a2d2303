"""`sage models`: which models a name can mean here, whether their weights are there, and getting another one."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import click

from sage_core.cli.app import App, pass_app
from sage_core.cli.group import Group
from sage_core.cli.output import json_option, print_json, print_table
from sage_core.common.added import added_models, read_origin, write_model
from sage_core.common.contracts import Backend
from sage_core.common.errors import ModelError, SageError, UsageError, suggest
from sage_core.common.host import Host
from sage_core.common.records import ModelSpec
from sage_core.kernel.dataflow.sections import known_models

#: The optional method of a backend that brings a model onto this machine.
Add = Callable[[str, str, Mapping[str, object], Path], Mapping[str, object]]


@click.group(cls=Group)
def models() -> None:
    """List models, and add one.

    \b
    Examples:
      sage models list
      sage models add minilm
    """


@models.command("list")
@json_option
@pass_app
def list_models(app: App, as_json: bool) -> None:
    """List the models that workflows here can name, and whether their weights are present.

    \b
    Examples:
      sage models list
      sage models list --json
    """
    rows = describe_models(app)
    if as_json:
        print_json(rows)
        return
    print_table(
        ["model", "backend", "from", "present", "source"],
        [[row["name"], row["backend"], row["from"], "yes" if row["present"] else "no", row["source"]] for row in rows],
    )
    for row in rows:
        if row["problem"]:
            click.echo(row["problem"], err=True)


@models.command()
@click.argument("name")
@click.option(
    "--source", default="", help="A folder, a file, or hf:ORG/NAME; not needed for a name with default weights."
)
@click.option(
    "--backend", default="", help="The backend that will serve it.  [default: the one that knows NAME, or onnx]"
)
@click.option("--quantize", metavar="KIND", help="Make the weights smaller, for example int8.")
@click.option("--torch-backend", metavar="NAME", help="The PyTorch build for the isolated environment that exports.")
@click.option("--replace", is_flag=True, help="Replace a model of this name.")
@json_option
@pass_app
def add(
    app: App,
    name: str,
    source: str,
    backend: str,
    quantize: str | None,
    torch_backend: str | None,
    replace: bool,
    as_json: bool,
) -> None:
    """Bring a model onto this machine under NAME, converted for its backend.

    \b
    Examples:
      sage models add minilm
      sage models add mine --source hf:ORG/NAME --quantize int8
      sage models add better --source ~/models/better.gguf --backend local
    """
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", name):
        raise UsageError(f"{name!r} cannot name a model", "use letters, digits, dots, dashes and underscores")
    target = app.paths.models / name
    if target.exists() and not replace:
        raise UsageError(f"a model named {name!r} is there already: {target}", "add --replace to make it anew")
    packaged = {spec.name: spec.backend for spec in packaged_models(app.host)}
    if not source and name not in packaged:
        names = sorted(packaged)
        known = f"names with default weights: {', '.join(names)}" if names else "no name has default weights here"
        raise UsageError(
            f"where is the model {name!r} to come from?{suggest(name, names)}",
            f"add --source PATH or --source hf:ORG/NAME; {known}",
        )
    source = source or f"package:{name}"
    backend = backend or packaged.get(name, "onnx")
    given = {"quantize": quantize, "torch_backend": torch_backend}
    options = {key: value for key, value in given.items() if value is not None}
    facts = add_model(app.host, name, source, backend, options, target)
    if as_json:
        print_json({"name": name, "backend": backend, **facts})
        return
    click.echo(f"{name} is ready for the backend {backend}")
    for key, value in facts.items():
        click.echo(f"  {key}: {value}")


def add_model(
    host: Host, name: str, source: str, backend: str, options: Mapping[str, object], target: Path
) -> dict[str, object]:
    """Let the backend fill a folder beside `target`, prove that it can use it, and only then give it the name.

    A backend takes part by a method ``add(name, source, options, target) -> Mapping``: it fills the empty folder
    `target` from a path, ``hf:ORG/NAME`` or ``package:NAME`` (its own default weights), and returns facts for the user;
    the key ``settings`` in them holds the model's own options from then on.
    """
    chosen = make_backend(host, backend)
    method: Add | None = getattr(chosen, "add", None)
    if method is None:
        able = [each for each in host.backends if hasattr(host.backends[each], "add")]
        raise ModelError(
            name, f"the backend {backend!r} adds no models", f"backends that do: {', '.join(able) or 'none installed'}"
        )
    staging = target.with_name(f".{name}.adding")
    shutil.rmtree(staging, ignore_errors=True)
    staging.mkdir(parents=True)
    try:
        facts = dict(method(name, source, options, staging))
        settings = facts.pop("settings", {})
        assert isinstance(settings, Mapping), f"backend {backend!r}: add() must return settings as a mapping"
        spec = ModelSpec(name=name, backend=backend, source=str(staging), options=dict(settings))
        facts["identity"] = chosen.identify(spec)
        write_model(staging, backend, settings, {"source": source, **options})
        shutil.rmtree(target, ignore_errors=True)
        staging.rename(target)
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    # What the backend says of the folder it filled is to hold for the place where the folder is from then on.
    return {
        key: value.replace(str(staging), str(target)) if isinstance(value, str) else value
        for key, value in facts.items()
    }


def describe_models(app: App) -> list[dict[str, Any]]:
    """Every model a workflow here can name without describing it, as one JSON-able row each, by name."""
    added = added_models(app.paths)
    usable, broken = known_models({**added, **app.config.models}, app.host, Path.cwd())
    rows = []
    for name, spec in usable.items():
        where = "sage.toml" if name in app.config.models else "added"
        origin = str(read_origin(app.paths, name).get("source", "")) if where == "added" else spec.source
        rows.append(_row(app.host, spec, where, origin))
    for name, problem in broken.items():
        rows.append(_absent(ModelSpec(name=name, backend=""), "sage.toml", "", f"model {name!r}: {problem}"))
    for spec in packaged_models(app.host):
        if spec.name not in usable and spec.name not in broken:
            rows.append(_row(app.host, spec, "package", spec.source))
    return sorted(rows, key=lambda row: str(row["name"]))


def packaged_models(host: Host) -> list[ModelSpec]:
    """The names each backend finds default weights for, from its optional attribute `packaged`."""
    found = []
    for backend in host.backends:
        try:
            names = getattr(make_backend(host, backend), "packaged", ())
        except SageError:
            continue  # `sage doctor` reports a backend that cannot be imported.
        found += [ModelSpec(name=name, backend=backend) for name in names]
    return found


def make_backend(host: Host, name: str) -> Backend:
    """Make a backend from its registry entry."""
    factory = host.backends[name]
    assert callable(factory), f"backend {name!r} is no class"
    backend: Backend = factory()
    return backend


def _row(host: Host, spec: ModelSpec, where: str, source: str) -> dict[str, Any]:
    try:
        identity = make_backend(host, spec.backend).identify(spec)
    except SageError as error:
        return _absent(spec, where, source, str(error))
    return _absent(spec, where, source, "") | {"present": True, "identity": identity}


def _absent(spec: ModelSpec, where: str, source: str, problem: str) -> dict[str, Any]:
    return {
        "name": spec.name,
        "backend": spec.backend,
        "from": where,
        "source": source,
        "present": False,
        "identity": "",
        "problem": problem,
    }
