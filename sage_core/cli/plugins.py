"""`sage plugins`: what is installed, what each plugin adds, and getting more or fewer of them."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, metadata
from typing import Any

import click

from sage_core.cli.app import App, pass_app
from sage_core.cli.group import Group
from sage_core.cli.installer import Installer, canonical, find_bundled
from sage_core.cli.output import json_option, print_json, print_table
from sage_core.common.errors import PluginError, UnknownName, UsageError
from sage_core.common.host import Host, PluginInfo


@click.group(cls=Group)
def plugins() -> None:
    """List, show, install and uninstall plugins.

    \b
    Examples:
      sage plugins list
      sage plugins install sage-onnx[minilm]
    """


@plugins.command("list")
@json_option
@pass_app
def list_plugins(app: App, as_json: bool) -> None:
    """List every plugin found, with what it adds, or why it is quarantined.

    \b
    Examples:
      sage plugins list
      sage plugins list --json
    """
    rows = describe_all(app.host)
    if as_json:
        print_json(rows)
        return
    print_table(
        ["plugin", "version", "distribution", "adds"],
        [[row["name"], row["version"], row["distribution"], _summary(row)] for row in rows],
    )


@plugins.command()
@click.argument("name")
@json_option
@pass_app
def info(app: App, name: str, as_json: bool) -> None:
    """Show one plugin: every name it adds and where that is defined.

    \b
    Examples:
      sage plugins info rag
    """
    found = _find(app.host, name)
    row = describe(app.host, found) | {"hooks": list(found.hooks), "summary": _about(found.distribution)}
    if as_json:
        print_json(row)
        return
    click.echo(f"{row['name']} {row['version']}  ({row['distribution'] or 'part of the core'})")
    if row["summary"]:
        click.echo(f"  {row['summary']}")
    if row["error"]:
        click.echo(f"  quarantined: {row['error']}")
    for kind, names in row["adds"].items():
        click.echo(f"  {kind}:")
        for each in names:
            click.echo(f"    {each:<20} {getattr(app.host, kind).target(each)}")


@plugins.command()
@click.argument("what", nargs=-1, required=True)
@click.option("--from-index", is_flag=True, help="Take bare names from the package index.")
@json_option
@pass_app
def install(app: App, what: tuple[str, ...], from_index: bool, as_json: bool) -> None:
    """Install plugins into this environment.

    WHAT is a bundled plugin's name (in a checkout; extras as in sage-onnx[minilm]), a path, a wheel, NAME==VERSION
    or a URL. A bare name that is not bundled is never looked up on the package index unless --from-index is given.

    \b
    Examples:
      sage plugins install sage-rag sage-onnx[minilm]
      sage plugins install ./my-plugin
      sage plugins install sage-example==1.2
    """
    installer = Installer(find_bundled())
    arguments = [argument for each in what for argument in installer.resolve(each, from_index=from_index)]
    before = {(row["name"], row["version"], row["error"]) for row in describe_all(app.host)}
    asked = {canonical(each.partition("[")[0].partition("=")[0]) for each in what}
    installer.install(arguments)
    brought = [
        row
        for row in _fresh_listing()
        if (row["name"], row["version"], row["error"]) not in before or canonical(row["distribution"]) in asked
    ]
    if as_json:
        print_json(brought)
    else:
        for row in brought:
            click.echo(f"{row['name']} {row['version']} adds {_summary(row)}")
        if not brought:
            click.echo("Installed, but it brings no plugin that was not there: see `sage plugins list`.", err=True)
    for row in brought:
        if row["error"]:
            raise PluginError(row["name"], row["error"], f"sage plugins uninstall {row['name']}")


@plugins.command()
@click.argument("name")
@click.option("--yes", is_flag=True, help="Do not ask.")
@json_option
@pass_app
def uninstall(app: App, name: str, yes: bool, as_json: bool) -> None:
    """Uninstall the distribution of a plugin, given the plugin's or the distribution's name.

    \b
    Examples:
      sage plugins uninstall rag
      sage plugins uninstall sage-rag --yes
    """
    found = _find(app.host, name)
    if not found.distribution:
        raise UsageError(f"{found.name!r} is part of the core", "SAGE_PLUGINS chooses which plugins load")
    gone = [each.name for each in app.host.plugins() if each.distribution == found.distribution]
    if not yes:
        if not sys.stdin.isatty():
            raise UsageError("there is no terminal to confirm on", "add --yes")
        click.confirm(f"Uninstall {found.distribution} (plugin {', '.join(gone)})?", abort=True, err=True)
    Installer({}).uninstall(found.distribution)
    if as_json:
        print_json({"distribution": found.distribution, "plugins": gone})
    else:
        click.echo(f"{found.distribution} is uninstalled.")


def describe_all(host: Host) -> list[dict[str, Any]]:
    """Every plugin as one JSON-able row, by name."""
    return [describe(host, each) for each in host.plugins()]


def describe(host: Host, plugin: PluginInfo) -> dict[str, Any]:
    """Return what `sage plugins list --json` says of one plugin."""
    return {
        "name": plugin.name,
        "version": plugin.version,
        "distribution": plugin.distribution,
        "adds": host.contributions(plugin.name),
        "error": plugin.error,
    }


def _find(host: Host, name: str) -> PluginInfo:
    installed = host.plugins()
    for each in installed:
        if each.name == name or (each.distribution and canonical(each.distribution) == canonical(name)):
            return each
    raise UnknownName("plugin", name, tuple(each.name for each in installed))


def _summary(row: Mapping[str, Any]) -> str:
    if row["error"]:
        return f"quarantined: {row['error']}"
    return "; ".join(f"{kind} {', '.join(names)}" for kind, names in row["adds"].items()) or "hooks only"


def _about(distribution: str) -> str:
    try:
        return str(metadata(distribution)["Summary"] or "") if distribution else ""
    except PackageNotFoundError:
        return ""


def _fresh_listing() -> list[dict[str, Any]]:
    # A process sees packages as they were when it started, so another one looks.
    command = [sys.executable, "-m", "sage_core.cli", "plugins", "list", "--json"]
    listing: list[dict[str, Any]] = json.loads(subprocess.run(command, capture_output=True, check=True).stdout)
    return listing
