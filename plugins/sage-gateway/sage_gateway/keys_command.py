"""`sage keys`: make, list and revoke the API keys of the gateway."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import click
import msgspec

from sage_core import find_paths
from sage_gateway.keys import Key, KeyFile, keys_path

_json = click.option("--json", "as_json", is_flag=True, help="Print one JSON document on standard output.")


@click.group()
def keys() -> None:
    """Make, list and revoke the API keys of the gateway.

    They are kept as digests in .sage/keys.json of the project. While there is none, `sage serve` binds loopback and
    lets every caller in; a running gateway sees a change within a second.

    \b
    Examples:
      sage keys add search --models "chat,workflow/*"
      sage keys list
      sage keys revoke 3f9a
    """


@keys.command()
@click.argument("tenant")
@click.option("--admin", is_flag=True, help="May change what is served, and see every tenant's requests and runs.")
@click.option(
    "--class",
    "service_class",
    type=click.Choice(["interactive", "standard", "batch"]),
    help="Service class of its requests; they may name one behind it, and none before it.",
)
@click.option(
    "--priority", type=click.IntRange(-1_000_000, 1_000_000), default=0, metavar="N", help="Larger goes first."
)
@click.option("--ttft", type=click.FloatRange(0, min_open=True), metavar="SECONDS", help="SLO: to the first token.")
@click.option("--tpot", type=click.FloatRange(0, min_open=True), metavar="SECONDS", help="SLO: between tokens.")
@click.option(
    "--end-to-end", type=click.FloatRange(0, min_open=True), metavar="SECONDS", help="SLO: to the last token."
)
@click.option(
    "--models", default="", metavar="NAMES", help="Models it may name, by comma; patterns with * are allowed."
)
@click.option("--requests", type=click.IntRange(1), metavar="N", help="Requests a minute.")
@click.option("--tokens", type=click.IntRange(1), metavar="N", help="Tokens a minute, input and output.")
@click.option("--concurrency", type=click.IntRange(1), metavar="N", help="Requests in flight.")
@click.option(
    "--budget",
    type=click.FloatRange(0, min_open=True),
    metavar="AMOUNT",
    help="What it may spend in all; see [gateway.prices].",
)
@_json
def add(
    tenant: str,
    admin: bool,
    service_class: str | None,
    priority: int,
    ttft: float | None,
    tpot: float | None,
    end_to_end: float | None,
    models: str,
    requests: int | None,
    tokens: int | None,
    concurrency: int | None,
    budget: float | None,
    as_json: bool,
) -> None:
    """Make a key for TENANT and print it: it is shown this once.

    Requests with the key are the tenant's; several keys may name one tenant.

    \b
    Examples:
      sage keys add ops --admin
      sage keys add search --requests 600 --tokens 200000 --concurrency 32
      sage keys add nightly --class batch --budget 25 --json
    """
    text, key = _file().add(
        tenant=tenant,
        admin=admin,
        service_class=service_class,
        priority=priority,
        ttft=ttft,
        tpot=tpot,
        end_to_end=end_to_end,
        models=[name.strip() for name in models.split(",") if name.strip()],
        requests_per_minute=requests or 0,
        tokens_per_minute=tokens or 0,
        concurrency=concurrency or 0,
        budget=budget or 0.0,
    )
    if as_json:
        click.echo(json.dumps({"key": text, **_shown(key)}, indent=2))
    else:
        click.echo(text)
        click.echo(f"note: key {key.id} of tenant {tenant}; it is not shown again", err=True)


@keys.command("list")
@_json
def list_keys(as_json: bool) -> None:
    """List the keys by their ids, with what each may do.

    \b
    Examples:
      sage keys list
      sage keys list --json
    """
    rows = [_shown(key) for key in _file().read()]
    if as_json:
        click.echo(json.dumps(rows, indent=2))
    elif not rows:
        click.echo("No keys: the gateway binds loopback and lets every caller in\n  help: sage keys add", err=True)
    for row in rows if not as_json else []:
        said = [
            f"{name}={value}" for name, value in row.items() if value and name not in ("id", "tenant", "created_at")
        ]
        click.echo("  ".join([row["id"], row["tenant"], row["created_at"], *said]))


@keys.command()
@click.argument("key_id", metavar="ID")
@_json
def revoke(key_id: str, as_json: bool) -> None:
    """Remove the key ID, or the only one that starts so; a running gateway refuses it within a second.

    \b
    Examples:
      sage keys revoke 3f9a61c2b7
    """
    key = _file().revoke(key_id)
    click.echo(json.dumps({"id": key.id, "revoked": True}, indent=2) if as_json else f"revoked {key.id}")


def _file() -> KeyFile:
    return KeyFile(keys_path(find_paths(Path.cwd())))


def _shown(key: Key) -> dict[str, Any]:
    fields = msgspec.structs.asdict(key)
    # Of no use to anybody but the gateway.
    del fields["digest"]
    at = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(key.created_at))
    return {**fields, "models": list(key.models), "created_at": at}
