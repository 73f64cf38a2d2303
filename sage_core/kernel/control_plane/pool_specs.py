"""A model's table as a pool: its settings, and one `ModelSpec` for each engine that can be opened.

```toml
[models.chat]
backend = "openai"
base_url = ["http://a:8000/v1", "http://b:8000/v1"]   # two engines; `engines = [{…}, {…}]` where more differs
min = 2                # engines kept open; default: all where there are several, else none
idle = "10m"           # close what has rested for so long; default: never
scheduler = "hybrid"   # default: [scheduler] requests
queue = { requests = 1000, bytes = "64MiB", wait = "60s" }
```
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from sage_core.common.clock import SECOND
from sage_core.common.errors import BadValue, ConfigError
from sage_core.common.records import ModelSpec, PoolSpec, QueueLimits
from sage_core.kernel.control_plane.events import lane_of
from sage_core.kernel.dataflow import units


class _Queue(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    requests: int = 0
    bytes: str | int = 0
    wait: str = ""


class PoolTable(msgspec.Struct, frozen=True, kw_only=True):
    """The keys of a model's table that say how many engines there are; the rest goes to the backend."""

    engines: tuple[dict[str, Any], ...] = ()
    min: int | None = None
    idle: str = ""
    grow: float = 5.0
    scheduler: str = ""
    queue: _Queue = _Queue()


_KEYS = tuple(field.name for field in msgspec.structs.fields(PoolTable))


def members_of(spec: ModelSpec) -> tuple[ModelSpec, ...]:
    """One specification for each engine of a model, at least one."""
    table = _table(spec)
    plain = {key: value for key, value in spec.options.items() if key not in _KEYS}
    urls = plain.get("base_url")
    given: tuple[Mapping[str, Any], ...] = table.engines
    if isinstance(urls, list):
        if table.engines:
            raise ConfigError(f"[models.{spec.name}]", "it has both engines and a list in base_url", "keep one of them")
        given = tuple({"base_url": url} for url in plain.pop("base_url"))
    return tuple(_member(spec, plain, each) for each in given) or (msgspec.structs.replace(spec, options=plain),)


def pool_of(spec: ModelSpec, *, queue: QueueLimits | None = None) -> PoolSpec:
    """The pool that serves a model.

    Args:
        queue: limits for what the table does not say.
    """
    table = _table(spec)
    queue = queue or QueueLimits()
    count = len(members_of(spec))
    try:
        return PoolSpec(
            lane=lane_of(spec),
            model=spec.name,
            members=count,
            min=table.min if table.min is not None else (count if count > 1 else 0),
            idle=round(units.seconds(table.idle) * SECOND) if table.idle else None,
            grow=table.grow,
            queue=QueueLimits(
                requests=table.queue.requests or queue.requests,
                bytes=units.size(table.queue.bytes) or queue.bytes,
                wait=round(units.seconds(table.queue.wait) * SECOND) if table.queue.wait else queue.wait,
            ),
            policy=table.scheduler,
        )
    except BadValue as error:
        raise ConfigError(f"[models.{spec.name}]", str(error)) from None


def _table(spec: ModelSpec) -> PoolTable:
    try:
        return msgspec.convert({key: spec.options[key] for key in _KEYS if key in spec.options}, PoolTable)
    except msgspec.ValidationError as error:
        raise ConfigError(f"[models.{spec.name}]", str(error).replace("`", "'")) from None


def _member(spec: ModelSpec, plain: Mapping[str, Any], given: Mapping[str, Any]) -> ModelSpec:
    rest = {key: value for key, value in given.items() if key not in ("backend", "source", "needs", "options")}
    backend = given.get("backend", spec.backend)
    # Another backend has other options.
    shared = plain if backend == spec.backend else {}
    return ModelSpec(
        name=spec.name,
        backend=backend,
        source=given.get("source", spec.source),
        options={**shared, **rest, **given.get("options", {})},
        needs={**spec.needs, **given.get("needs", {})},
    )
