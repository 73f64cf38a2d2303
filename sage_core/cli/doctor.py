"""`sage doctor`: one look at everything a run stands on, before a run has to find out."""

from __future__ import annotations

import os
import shutil
import sqlite3
import sys
from pathlib import Path
from typing import Any

import click

from sage_core import __version__
from sage_core.cli.app import App, pass_app
from sage_core.cli.models import describe_models
from sage_core.cli.output import json_option, print_json, print_table
from sage_core.cli.plugins import describe_all
from sage_core.cli.version import versions
from sage_core.common.config import Config
from sage_core.common.errors import PortTaken, SageError
from sage_core.common.ports import DEFAULTS, SagePorts
from sage_core.platform.database import mask
from sage_core.platform.mounts import MOUNTS, network_file_system
from sage_core.platform.sqlite import UNSAFE, sqlite_path

#: The first SQLite with RETURNING, which claims use.
SQLITE = (3, 35, 0)
#: Bytes below which an index of any size will not fit.
SCARCE = 1 << 30


@click.command()
@json_option
@pass_app
def doctor(app: App, as_json: bool) -> None:
    """Examine the installation and say what is wrong with it.

    \b
    Examples:
      sage doctor
      sage doctor --json
    """
    report = examine(app)
    if as_json:
        print_json(report)
    else:
        _print(report)
    if report["problems"]:
        click.get_current_context().exit(1)


def examine(app: App, mounts: Path = MOUNTS) -> dict[str, Any]:
    """Look at everything; `problems` are what keeps SAGE from working, `notes` what may surprise."""
    problems, notes = [], []
    try:
        config = app.config
    except SageError as error:
        problems.append(str(error))
        app.config = config = Config()
    found = versions()
    if sqlite3.sqlite_version_info < SQLITE:
        wanted = ".".join(map(str, SQLITE))
        problems.append(f"SQLite {found['sqlite']} is too old: {wanted} or later is needed\n  help: use another Python")
    problems += [
        f"{name} is not installed\n  help: reinstall sage-core" for name, it in found.items() if it == "missing"
    ]
    folders = [examine_folder(name, getattr(app.paths, name)) for name in ("project", "data", "runtime")]
    for folder in folders:
        if not folder["writable"]:
            problems.append(f"{folder['path']} cannot be written\n  help: SAGE_HOME=FOLDER moves everything SAGE keeps")
        elif folder["free"] < SCARCE:
            notes.append(f"{folder['path']} has {folder['free'] / 1e6:.0f} MB left")
    store = config.store.url or f"sqlite:///{app.paths.database}"
    shared = network_file_system(sqlite_path(store), mounts) if store.startswith("sqlite:///") else ""
    if shared:
        notes.append(f"{mask(store)} lies on {shared}: {UNSAFE}")
    problems += [str(problem) for problem in app.host.check()]
    try:
        ports = [examine_port(SagePorts(config.ports), name) for name in DEFAULTS]
    except SageError as error:
        ports = []
        problems.append(str(error))
    notes += [f"port {port['port']} ({port['name']}) is taken by {port['holder']}" for port in ports if port["holder"]]
    try:
        models = describe_models(app)
    except SageError as error:
        models = []
        problems.append(str(error))
    notes += [model["problem"] for model in models if model["problem"]]
    return {
        "ok": not problems,
        "sage": __version__,
        "executable": sys.executable,
        "versions": found,
        "paths": folders,
        "ports": ports,
        "plugins": describe_all(app.host),
        "models": models,
        "problems": problems,
        "notes": notes,
    }


def examine_folder(name: str, path: Path) -> dict[str, Any]:
    """Whether a folder can be used, or made: judged at its nearest ancestor that exists; `free` is in bytes."""
    at = next(each for each in (path, *path.parents) if each.exists())
    writable = at.is_dir() and os.access(at, os.W_OK | os.X_OK)
    return {"name": name, "path": path, "writable": writable, "free": shutil.disk_usage(at).free}


def examine_port(ports: SagePorts, name: str) -> dict[str, Any]:
    """Who holds a port; `holder` is empty while it is free."""
    try:
        return {"name": name, "port": ports.claim(name), "holder": ""}
    except PortTaken as taken:
        return {"name": name, "port": ports[name], "holder": taken.args[2]}


def _print(report: dict[str, Any]) -> None:
    click.echo(f"sage {report['sage']} in {report['executable']}")
    click.echo("  " + ", ".join(f"{name} {version}" for name, version in report["versions"].items()))
    click.echo()
    folders = [
        [it["name"], it["path"], "yes" if it["writable"] else "NO", f"{it['free'] / 1e9:.0f} GB"]
        for it in report["paths"]
    ]
    print_table(["folder", "path", "writable", "free"], folders)
    click.echo()
    print_table(
        ["port", "number", "held by"], [[it["name"], it["port"], it["holder"] or "nobody"] for it in report["ports"]]
    )
    click.echo()
    plugins = [[it["name"], it["version"], "quarantined" if it["error"] else "ok"] for it in report["plugins"]]
    print_table(["plugin", "version", "state"], plugins)
    if report["models"]:
        click.echo()
        models = [[it["name"], it["backend"], it["from"], "yes" if it["present"] else "no"] for it in report["models"]]
        print_table(["model", "backend", "from", "present"], models)
    for note in report["notes"]:
        click.echo(f"\nnote: {note}")
    for problem in report["problems"]:
        click.echo(f"\nproblem: {problem}")
    count = len(report["problems"])
    click.echo(f"\n{count or 'No'} problem{'' if count == 1 else 's'}.")
