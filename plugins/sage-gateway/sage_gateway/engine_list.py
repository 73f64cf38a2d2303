"""The engines of a running gateway: listed, added, drained and removed without touching sage.toml."""

from __future__ import annotations

from typing import Any

import msgspec

from sage_core import ConfigError, ModelSpec
from sage_core.serving import engine_needs, members_of, suggest
from sage_gateway.errors import ApiError
from sage_gateway.gateway import Gateway
from sage_gateway.workflows import PREFIX

#: Keys of an engine's table that are none of its backend's options.
_OWN = {"backend": str, "source": str, "needs": dict, "options": dict}
#: Keys of a model that are those of all its engines together.
_POOL = ("engines", "min", "idle", "grow", "scheduler", "queue")


def rows(gateway: Gateway) -> list[dict[str, Any]]:
    """Every engine there is, and every member of a model that has none at present."""
    found = []
    for name, lane in gateway.lanes.items():
        pool = gateway.driver.manager.pools.get(lane)
        if pool is None:
            continue
        members = gateway.driver.pools.members(lane)
        running = {standing.member: standing for standing in pool.engines.values()}
        for number, spec in enumerate(members):
            standing = running.get(number)
            if standing is None and number in pool.spec.closed:
                continue
            state: str = standing.state if standing is not None else "closed"
            if standing is not None and standing.paused_until is not None:
                state = "paused"
            found.append(
                {
                    "model": name,
                    "member": number,
                    "engine": standing.engine if standing is not None else "",
                    "state": state,
                    "backend": spec.backend,
                    "where": str(spec.options.get("base_url", "") or spec.source),
                    "failures": standing.failures if standing is not None else 0,
                    # What the engine says of itself, where it does.
                    "figures": dict(gateway.driver.pools.figures(standing.engine)) if standing is not None else {},
                    "policy": pool.spec.policy or gateway.config.scheduler.requests,
                }
            )
    return found


def add(gateway: Gateway, name: str, table: dict[str, Any]) -> None:
    """Add an engine to a model, or serve a model that is not served yet; raises `ApiError` 400 or 409."""
    for key, kind in _OWN.items():
        if not isinstance(table.get(key, kind()), kind):
            what = "a text" if kind is str else "an object"
            raise ApiError(400, f"engine.{key} must be {what}", code="invalid_type", param=f"engine.{key}")
    for key in _POOL:
        if key in table:
            message = f"engine.{key} is not of one engine: set it in [models.{name}] of sage.toml"
            raise ApiError(400, message, param=f"engine.{key}")
    if not isinstance(table.get("base_url", ""), str):
        raise ApiError(400, "engine.base_url must be a text: each address is an engine", param="engine.base_url")
    if name.startswith(PREFIX):
        raise ApiError(400, f"{name!r} is the name of a workflow: models do not begin with {PREFIX}", param="model")
    backend, known = table.get("backend"), sorted(gateway.host.backends)
    if backend is not None and backend not in known:
        message = f"no backend is named {backend!r}.{suggest(backend, known)} Installed: {', '.join(known)}."
        raise ApiError(400, message, code="unknown_backend", param="engine.backend")
    spec = gateway.models.get(name)
    if spec is None:
        if "backend" not in table:
            raise ApiError(400, f"no model is named {name!r}: a new one needs a backend", param="backend")
        spec = ModelSpec(name=name, backend=table["backend"], options={"engines": [table]})
    else:
        member = _table(spec, table)
        others = _tables(gateway, spec)
        if member in others:
            raise ApiError(409, f"model {name!r} has this engine already", code="engine_exists")
        spec = _with(spec, [*others, member])
    _serve(gateway, spec)


def remove(gateway: Gateway, name: str, number: int) -> None:
    """Take a member of a model out of service: it is drained, closed, and not opened again."""
    spec = gateway.models.get(name)
    members = gateway.driver.pools.members(gateway.lanes[name]) if spec is not None else ()
    if spec is None or not 0 <= number < len(members):
        raise ApiError(404, f"model {name!r} has no engine {number}", code="engine_not_found")
    gone = _plain(members[number])
    left = [table for table in _tables(gateway, spec) if table != gone]
    if not left:
        raise ApiError(409, f"engine {number} is the last one of model {name!r}", code="last_engine")
    _serve(gateway, _with(spec, left))


def number_of(gateway: Gateway, engine: str) -> tuple[str, int]:
    """The model and the number of an engine, named by its id or as ``MODEL/NUMBER``; raises `ApiError` 404."""
    name, _, number = engine.rpartition("/")
    for row in rows(gateway):
        if (engine and row["engine"] == engine) or (row["model"] == name and str(row["member"]) == number):
            return row["model"], row["member"]
    known = ", ".join(row["engine"] or f"{row['model']}/{row['member']}" for row in rows(gateway))
    raise ApiError(404, f"no engine is named {engine!r}. Known: {known or 'none'}.", code="engine_not_found")


def _serve(gateway: Gateway, spec: ModelSpec) -> None:
    try:
        for member in members_of(spec):
            engine_needs(member)
        gateway.serve(spec)
    except (ConfigError, msgspec.ValidationError) as error:
        raise ApiError(400, str(error)) from None


def _table(spec: ModelSpec, table: dict[str, Any]) -> dict[str, Any]:
    # What is not said is as with the model's other engines.
    first = msgspec.structs.replace(spec, options={**_shared(spec), "engines": [table]})
    return _plain(members_of(first)[0])


def _shared(spec: ModelSpec) -> dict[str, Any]:
    return {key: value for key, value in spec.options.items() if key not in ("engines", "base_url")}


def _tables(gateway: Gateway, spec: ModelSpec) -> list[dict[str, Any]]:
    return [_plain(member) for member in members_of(spec)]


def _plain(member: ModelSpec) -> dict[str, Any]:
    return {"backend": member.backend, "source": member.source, "options": member.options, "needs": member.needs}


def _with(spec: ModelSpec, tables: list[dict[str, Any]]) -> ModelSpec:
    # The settings of the pool stay with the model; everything else is in the tables of its engines.
    kept = {key: value for key, value in spec.options.items() if key in _POOL and key != "engines"}
    return msgspec.structs.replace(spec, options={**kept, "engines": tables})
