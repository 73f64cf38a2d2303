"""``/sage/v1/runs`` and ``/sage/v1/queues``: what is kept of runs; a tenant sees its own, an admin all."""

from __future__ import annotations

import time
from typing import Any
from urllib.parse import parse_qs

import msgspec

from sage_core import UsageError
from sage_core.serving import StoredRun, caller_of
from sage_gateway.accounts import Account
from sage_gateway.app import Route
from sage_gateway.errors import ApiError
from sage_gateway.exchange import Exchange

#: Runs of one answer, at most and where the request does not say.
MOST, SOME = 1_000, 50


async def listed(exchange: Exchange) -> None:
    """Runs, newest first; ``limit`` and ``workflow`` narrow them down."""
    asked = parse_qs(exchange.query)
    rows = await exchange.gateway.desk.runs(
        number(asked, "limit", SOME, MOST), workflow=asked.get("workflow", [None])[0], tenant=seen_by(exchange.account)
    )
    await exchange.answer({"object": "list", "data": [_row(run) for run in rows]})


async def shown(exchange: Exchange) -> None:
    """One run: its steps, jobs, outputs and failures."""
    run = await own(exchange, exchange.path["run"])
    view = await exchange.gateway.desk.view(run)
    body = {**_row(run), **msgspec.structs.asdict(view), "tenant": caller_of(run).tenant}
    await exchange.reply(msgspec.json.encode(body, enc_hook=str))


async def cancelled(exchange: Exchange) -> None:
    """Stop a run of the caller's tenant, or as an admin any; what is finished of it is kept."""
    run = await own(exchange, exchange.path["run"])
    stopped = await exchange.gateway.desk.cancel(run.id)
    after = await exchange.gateway.desk.run(run.id)
    await exchange.answer({"run_id": run.id, "status": after.status, "cancelled": stopped})


async def queues(exchange: Exchange) -> None:
    """Queues that hold unfinished jobs, and how many."""
    rows = await exchange.gateway.desk.queues()
    await exchange.answer({"object": "list", "data": [msgspec.structs.asdict(row) for row in rows]})


async def own(exchange: Exchange, run_id: str) -> StoredRun:
    """A run that the account may see; raises `ApiError` 404 for any other as for none."""
    try:
        run = await exchange.gateway.desk.run(run_id)
    except UsageError:
        run = None
    tenant = seen_by(exchange.account)
    if run is None or (tenant is not None and caller_of(run).tenant != tenant):
        raise ApiError(404, f"no run has the id {run_id!r}", code="run_not_found")
    return run


def seen_by(account: Account) -> str | None:
    """The tenant whose runs an account sees; None is all."""
    return None if account.admin else account.tenant


def number(asked: dict[str, list[str]], name: str, default: int, most: int) -> int:
    """A whole number above 0 of the query; raises `ApiError` 400."""
    text = asked.get(name, [str(default)])[0]
    if not text.isascii() or not text.isdigit() or not 1 <= int(text[:9]) <= most:
        raise ApiError(400, f"{name} is a whole number from 1 to {most}", param=name)
    return int(text)


def _row(run: StoredRun) -> dict[str, Any]:
    return {
        "run_id": run.id,
        "workflow": run.workflow,
        "deployment": run.deployment,
        "status": run.status,
        "queue": run.queue,
        "tenant": caller_of(run).tenant,
        "created_at": _iso(run.created_at),
        "finished_at": None if run.finished_at is None else _iso(run.finished_at),
        "error": run.error,
    }


def _iso(ms: int) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(ms / 1000)) + f".{ms % 1000:03d}Z"


ROUTES = (
    Route("GET", "/sage/v1/runs", listed),
    Route("GET", "/sage/v1/runs/{run}", shown),
    Route("POST", "/sage/v1/runs/{run}/cancel", cancelled),
    Route("GET", "/sage/v1/queues", queues),
)
