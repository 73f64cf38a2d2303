"""Which models a run may ask for: the workflow's, filled in by sage.toml and by what `sage models add` left."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from sage_core.common.added import added_models
from sage_core.common.errors import BadValue, ConfigError
from sage_core.common.paths import Paths
from sage_core.common.records import ModelSpec, Needs
from sage_core.kernel.dataflow.units import size

#: Keys of a model's table that are not options of its backend.
_OWN = ("backend", "source", "needs", "options")


def resolve_models(
    graph_models: Mapping[str, ModelSpec], config_models: Mapping[str, Mapping[str, Any]], paths: Paths
) -> dict[str, ModelSpec]:
    """Merge the three places by name: what the workflow says goes first, then sage.toml, then the added models.

    A place that names another backend than the one before it describes another model, and fills in nothing.
    """
    added = {name: _spec(name, table, f"model.toml of {name}") for name, table in added_models(paths).items()}
    configured = {name: _spec(name, table, f"sage.toml [models.{name}]") for name, table in config_models.items()}
    merged: dict[str, ModelSpec] = {}
    for place in (graph_models, configured, added):
        for name, spec in place.items():
            merged[name] = _filled(merged[name], spec) if name in merged else spec
    for name, spec in merged.items():
        if not spec.backend:
            raise ConfigError(f"[models.{name}]", "it names no backend", 'add backend = "onnx" or another one')
    return merged


def _spec(name: str, table: Mapping[str, Any], where: str) -> ModelSpec:
    for key, kind in (("backend", str), ("source", str), ("needs", dict), ("options", dict)):
        if not isinstance(table.get(key, kind()), kind):
            raise ConfigError(where, f"{key} must be a {'string' if kind is str else 'table'}")
    options = {key: value for key, value in table.items() if key not in _OWN}
    return ModelSpec(
        name=name,
        backend=table.get("backend", ""),
        source=table.get("source", ""),
        options={**options, **table.get("options", {})},
        needs=dict(table.get("needs", {})),
    )


def _filled(first: ModelSpec, other: ModelSpec) -> ModelSpec:
    if first.backend and other.backend and first.backend != other.backend:
        return first
    return msgspec.structs.replace(
        first,
        backend=first.backend or other.backend,
        source=first.source or other.source,
        options={**other.options, **first.options},
        needs={**other.needs, **first.needs},
    )


def engine_needs(spec: ModelSpec) -> Needs:
    """What one engine of a model reserves."""
    given: Mapping[str, Any] = spec.needs
    try:
        return msgspec.convert(
            {name: size(value) if name in ("memory", "gpu_memory") else value for name, value in given.items()}, Needs
        )
    except (BadValue, msgspec.ValidationError) as error:
        raise ConfigError(f"[models.{spec.name}] needs", str(error).replace("`", "'")) from None
