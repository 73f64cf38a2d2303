"""``[[triggers.http]]``: a request to the path that a deployed workflow declares starts a run of it."""

from __future__ import annotations

import asyncio
import re
from contextlib import aclosing
from typing import Any
from urllib.parse import parse_qsl

import msgspec

from sage_core.serving import Report
from sage_gateway.app import Route
from sage_gateway.bodies import fields_of, read
from sage_gateway.callers import caller_of
from sage_gateway.errors import ApiError
from sage_gateway.exchange import Exchange
from sage_gateway.workflows import PREFIX

#: Seconds that a request may wait for its run at most.
LONGEST_WAIT = 300.0
_WAIT = re.compile(r"\bwait=(\d{1,6})\b", re.IGNORECASE)


async def fire(exchange: Exchange) -> None:
    """Start a run of the workflow that has a trigger here; 202, or with ``Prefer: wait=N`` its end within N seconds."""
    gateway, account = exchange.gateway, exchange.account
    path, method = exchange.scope["path"], exchange.scope["method"]
    name = await _deployment(exchange, path, method)
    if not account.allows(f"{PREFIX}{name}"):
        raise ApiError(403, f"this API key may not use {PREFIX}{name}", code="model_not_allowed")
    params = await _params(exchange, method)
    caller = caller_of(exchange.scope["headers"], account, gateway.classes, route=path, id=exchange.id)
    permit = gateway.accounts.admit(account, f"{PREFIX}{name}", 0)
    try:
        run_id = await gateway.desk.invoke(name, params, caller, priority=caller.priority)
    except BaseException:
        permit.refund()
        raise
    permit.settle(0, 0)
    waited = _WAIT.search(exchange.header(b"prefer"))
    report = await _end(exchange, run_id, min(LONGEST_WAIT, float(waited[1]))) if waited else None
    place = f"/sage/v1/runs/{run_id}"
    headers = [(b"location", place.encode()), *([(b"preference-applied", b"wait")] if report else [])]
    if report is None:
        body = {"run_id": run_id, "status": "queued", "url": place}
        await exchange.reply(msgspec.json.encode(body), status=202, headers=headers)
        return
    told = {"run_id": run_id, "status": report.status, "url": place, "outputs": report.outputs, "error": report.error}
    await exchange.reply(msgspec.json.encode(told, enc_hook=str), headers=headers)


async def _deployment(exchange: Exchange, path: str, method: str) -> str:
    methods: set[str] = set()
    for name, deployed in sorted((await exchange.gateway.desk.deployed()).items()):
        for trigger in deployed.graph.triggers:
            if trigger.kind == "http" and trigger.settings["path"] == path:
                if trigger.settings["method"] == method:
                    return name
                methods.add(trigger.settings["method"])
    if methods:
        raise ApiError(405, f"{path} takes {', '.join(sorted(methods))}", code="method_not_allowed")
    raise ApiError(404, f"no route is {path!r}", code="unknown_url")


async def _params(exchange: Exchange, method: str) -> dict[str, Any]:
    body = await exchange.body()
    if method == "GET":
        return _query(exchange.query)
    if not body:
        return {}
    fields_of(body)
    return read(body, dict[str, Any])


def _query(text: str) -> dict[str, str]:
    try:
        pairs = parse_qsl(text, keep_blank_values=True, errors="strict")
    except UnicodeDecodeError:
        raise ApiError(400, "the query is not UTF-8", code="invalid_query") from None
    found: dict[str, str] = {}
    for name, value in pairs:
        if name in found:
            raise ApiError(400, f"the query has {name!r} twice", code="duplicate_key", param=name)
        found[name] = value
    return found


async def _end(exchange: Exchange, run_id: str, seconds: float) -> Report | None:
    try:
        async with asyncio.timeout(seconds), aclosing(exchange.gateway.desk.follow(run_id)) as steps:
            async for told in steps:
                if isinstance(told, Report):
                    return told
    except TimeoutError:
        pass
    return None


#: Behind every other route: these paths are known when they are asked for.
ROUTES = (
    Route("GET", "/{path:path}", fire),
    Route("POST", "/{path:path}", fire),
    Route("PUT", "/{path:path}", fire),
    Route("DELETE", "/{path:path}", fire),
)
