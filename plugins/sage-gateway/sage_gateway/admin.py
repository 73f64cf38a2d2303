"""``/sage/v1``: requests and their decisions, pools and engines, and the policy; changes need an admin key."""

from __future__ import annotations

import time
from collections import Counter
from typing import Any

import msgspec

from sage_core import SECOND, ConfigError, PluginError, UnknownName
from sage_core.serving import scheduler_named
from sage_gateway import engine_list
from sage_gateway.app import Route
from sage_gateway.asked import Name
from sage_gateway.bodies import fields_of, read
from sage_gateway.errors import ApiError
from sage_gateway.exchange import Exchange


class NewEngine(msgspec.Struct, kw_only=True):
    """What ``POST /sage/v1/engines`` takes: a model's name and the table of one engine."""

    model: Name
    engine: dict[str, Any]


class NewPolicy(msgspec.Struct, kw_only=True):
    """What ``PUT /sage/v1/policy`` takes: a scheduler's name, and a model where it is not for all."""

    policy: Name
    model: str | None = None


async def request(exchange: Exchange) -> None:
    """A request as it stands, or as it went: what was estimated, what was chosen and why, and what happened."""
    gateway, id = exchange.gateway, exchange.path["request"]
    known = gateway.driver.manager.describe(id)
    body: dict[str, Any] | None = None if known is None else msgspec.to_builtins(known)
    if body is None and id in gateway.decisions:
        lines = gateway.decisions[id]
        body = {"request": id, "state": "ended", "tenant": lines[-1].tenant, "decisions": msgspec.to_builtins(lines)}
    if body is None or not (exchange.account.admin or body["tenant"] == exchange.account.tenant):
        raise ApiError(404, f"no request {id!r} is known; see the decision log for older ones", code="not_found")
    await exchange.answer(body)


async def engines(exchange: Exchange) -> None:
    """Every engine: its model, its state, and where it is."""
    await exchange.answer({"object": "list", "data": engine_list.rows(exchange.gateway)})


async def added(exchange: Exchange) -> None:
    """Add an engine; it is opened when it is needed, or at once where the model keeps engines open."""
    body = await exchange.body()
    fields_of(body)
    asked = read(body, NewEngine)
    engine_list.add(exchange.gateway, asked.model, asked.engine)
    await engines(exchange)


async def drained(exchange: Exchange) -> None:
    """Send an engine nothing more, and close it when it holds nothing; it may be opened again when it is needed."""
    gateway = exchange.gateway
    name, number = engine_list.number_of(gateway, exchange.path["engine"])
    for row in engine_list.rows(gateway):
        if (row["model"], row["member"]) == (name, number) and row["engine"]:
            gateway.driver.drain(row["engine"])
    await exchange.answer({"model": name, "member": number, "state": "draining"})


async def removed(exchange: Exchange) -> None:
    """Drain an engine and do not open it again."""
    name, number = engine_list.number_of(exchange.gateway, exchange.path["engine"])
    engine_list.remove(exchange.gateway, name, number)
    await exchange.answer({"model": name, "member": number, "state": "removed"})


async def pools(exchange: Exchange) -> None:
    """What waits for each model, and what is done about it."""
    gateway = exchange.gateway
    data = []
    now = time.monotonic_ns()
    for name in gateway.names(exchange.account):
        pool = gateway.driver.manager.pools.get(gateway.lanes.get(name, ""))
        if pool is None:
            continue
        oldest = next(iter(pool.line.values()), None)
        states = Counter(standing.state for standing in pool.engines.values())
        data.append(
            {
                "model": name,
                "policy": pool.spec.policy or gateway.config.scheduler.requests,
                "waiting": len(pool.line),
                "bytes": pool.bytes,
                "oldest_seconds": (now - oldest.arrival) / SECOND if oldest is not None else 0.0,
                "drain": pool.drain(now),
                "retry_after": pool.retry_after(now) if pool.line else 0.0,
                "engines": {state: states[state] for state in ("starting", "up", "draining")},
                "limits": msgspec.to_builtins(pool.spec.queue),
            }
        )
    await exchange.answer({"object": "list", "data": data})


async def policy(exchange: Exchange) -> None:
    """Which scheduler decides, by default and where a model has another."""
    await exchange.answer(_policies(exchange))


async def switched(exchange: Exchange) -> None:
    """Let another scheduler decide from here on; what waits stays, in the order of its arrival."""
    body = await exchange.body()
    fields_of(body)
    asked = read(body, NewPolicy)
    gateway = exchange.gateway
    try:
        scheduler_named(asked.policy, gateway.host.schedulers)
    except UnknownName as error:
        raise ApiError(400, str(error), code="unknown_policy", param="policy") from None
    except (ConfigError, PluginError) as error:
        raise ApiError(400, str(error), code="invalid_value", param="policy") from None
    if asked.model is not None:
        spec = gateway.model(asked.model, exchange.account)
        gateway.serve(msgspec.structs.replace(spec, options={**spec.options, "scheduler": asked.policy}))
    else:
        gateway.driver.switch(asked.policy)
        gateway.config = msgspec.structs.replace(
            gateway.config, scheduler=msgspec.structs.replace(gateway.config.scheduler, requests=asked.policy)
        )
    await exchange.answer(_policies(exchange))


def _policies(exchange: Exchange) -> dict[str, Any]:
    gateway = exchange.gateway
    default = gateway.config.scheduler.requests
    of = {name: str(spec.options.get("scheduler", "") or default) for name, spec in gateway.models.items()}
    return {"policy": default, "models": of, "known": sorted(gateway.host.schedulers)}


ROUTES = (
    Route("GET", "/sage/v1/requests/{request}", request),
    Route("GET", "/sage/v1/pools", pools),
    Route("GET", "/sage/v1/policy", policy),
    Route("PUT", "/sage/v1/policy", switched, "admin"),
    Route("GET", "/sage/v1/engines", engines, "admin"),
    Route("POST", "/sage/v1/engines", added, "admin"),
    # An engine's id holds a slash.
    Route("POST", "/sage/v1/engines/{engine:path}/drain", drained, "admin"),
    Route("DELETE", "/sage/v1/engines/{engine:path}", removed, "admin"),
)
