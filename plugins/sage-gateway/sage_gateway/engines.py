"""`sage engines`: list, add, drain and remove the engines of a running gateway."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

import click

from sage_gateway.command_line import CommandLine, ask

_json = click.option("--json", "as_json", is_flag=True, help="Print one JSON document on standard output.")
_url = click.option(
    "--url", default="", metavar="URL", help="The gateway; SAGE_GATEWAY_URL, [gateway] url, or this machine's."
)
_BARE = re.compile(r"[A-Za-z0-9_-]+")
_COLUMNS = ("model", "engine", "state", "backend", "where", "says")


@click.group()
def engines() -> None:
    """List, add, drain and remove the engines of a running gateway.

    What is changed here lasts until the gateway ends or reads sage.toml again. The lasting form is sage.toml: edit it
    and send the gateway SIGHUP. `sage engines add` prints what to write there. A gateway with keys asks for an admin
    key: SAGE_GATEWAY_KEY.

    \b
    Examples:
      sage engines list
      sage engines add chat base_url=http://gpu-3:8000/v1
      sage engines drain chat/0
      sage engines remove chat/0
    """


@engines.command("list")
@_url
@_json
@click.pass_obj
def listed(app: CommandLine, url: str, as_json: bool) -> None:
    """List the engines: of which model, in which state, where, and what vLLM servers say of themselves.

    \b
    Examples:
      sage engines list
      sage engines list --json
    """
    _show(ask(app, url, "GET", "/sage/v1/engines"), as_json)


@engines.command()
@click.argument("model")
@click.argument("options", nargs=-1, metavar="KEY=VALUE...")
@_url
@_json
@click.pass_obj
def add(app: CommandLine, model: str, options: tuple[str, ...], url: str, as_json: bool) -> None:
    """Add an engine to MODEL, or serve a MODEL that is not served yet.

    KEY=VALUE are the keys of an engine in [models.NAME]: backend, source, needs and the backend's options; what is not
    said is as with the model's other engines. A VALUE is JSON where it can be read as such, and else a text. The engine
    stays until the gateway ends or reads sage.toml again; what to write there to keep it is printed on standard error.

    \b
    Examples:
      sage engines add chat base_url=http://gpu-3:8000/v1
      sage engines add minilm backend=onnx
    """
    table: dict[str, Any] = {}
    for option in options:
        key, equals, value = option.partition("=")
        if not (key and equals):
            raise click.BadParameter(f"{option!r} is not KEY=VALUE", param_hint="KEY=VALUE")
        try:
            table[key] = json.loads(value)
        except ValueError:
            table[key] = value
    answer = ask(app, url, "POST", "/sage/v1/engines", {"model": model, "engine": table})
    _show(answer, as_json)
    if not as_json:
        others = sum(row["model"] == model for row in answer["data"]) > 1
        click.echo(f"\nto keep it, write in sage.toml:\n\n{lasting(model, table, others=others)}", err=True)


@engines.command()
@click.argument("engine")
@_url
@_json
@click.pass_obj
def drain(app: CommandLine, engine: str, url: str, as_json: bool) -> None:
    """Send ENGINE nothing more, and close it when it holds nothing. It may be opened again when it is needed.

    ENGINE is its id, or MODEL/NUMBER.

    \b
    Examples:
      sage engines drain chat/0
    """
    _told(ask(app, url, "POST", f"/sage/v1/engines/{engine}/drain"), as_json)


@engines.command()
@click.argument("engine")
@_url
@_json
@click.pass_obj
def remove(app: CommandLine, engine: str, url: str, as_json: bool) -> None:
    """Drain ENGINE, and do not open it again.

    \b
    Examples:
      sage engines remove chat/1
      sage engines remove chat/1 --json
    """
    _told(ask(app, url, "DELETE", f"/sage/v1/engines/{engine}"), as_json)


def lasting(model: str, table: Mapping[str, Any], *, others: bool) -> str:
    """The part of sage.toml that keeps an engine which was added by hand.

    Args:
        others: whether the model has engines beside it.
    """
    head = f"[models.{_key(model)}]"
    if others:
        return f"{head}\nengines = [\n  # … the engines it has, and\n  {_toml(table)},\n]"
    return "\n".join((head, *(f"{_key(key)} = {_toml(value)}" for key, value in table.items() if value is not None)))


def _key(name: str) -> str:
    return name if _BARE.fullmatch(name) else json.dumps(name)


def _toml(value: Any) -> str:
    if isinstance(value, Mapping):
        # TOML has no null: what is not set is left out.
        pairs = [f"{_key(key)} = {_toml(each)}" for key, each in value.items() if each is not None]
        return f"{{ {', '.join(pairs)} }}" if pairs else "{}"
    if isinstance(value, list):
        return f"[{', '.join(_toml(each) for each in value if each is not None)}]"
    # What JSON writes of texts, numbers and truth values is TOML too.
    return json.dumps(value, ensure_ascii=False)


def _told(answer: Any, as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps(answer, indent=2))
    else:
        click.echo(f"{answer['model']}/{answer['member']}: {answer['state']}")


def _show(answer: Any, as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps(answer["data"], indent=2))
        return
    table: list[Sequence[str]] = [_COLUMNS]
    for row in answer["data"]:
        name = row["engine"] or "-"
        table.append(
            (f"{row['model']}/{row['member']}", name, row["state"], row["backend"], row["where"], _said(row["figures"]))
        )
    widths = [max(len(row[column]) for row in table) for column in range(len(_COLUMNS))]
    for row in table:
        click.echo("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def _said(figures: dict[str, float]) -> str:
    if not figures:
        return ""
    asked = figures.get("prefix_queries", 0.0)
    said = [
        f"{figures.get('running', 0):g} running",
        f"{figures.get('waiting', 0):g} waiting",
        f"cache {figures.get('kv_usage', 0.0):.0%} full",
        *([f"{figures.get('prefix_hits', 0.0) / asked:.0%} of prompts found in it"] if asked else []),
    ]
    return ", ".join(said)
