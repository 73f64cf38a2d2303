"""A JSON Schema of workflow files for editors, made from the operators and backends that are installed.

Only draft-07 keywords are used, and what draft-04 tools do not know (``if``, ``const``) they ignore without harm.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sage_core.common.errors import BadSignature, PluginError
from sage_core.common.host import Host
from sage_core.kernel.dataflow import layout, signature, types
from sage_core.kernel.dataflow.graph import Option, Port, Signature, Type
from sage_core.kernel.dataflow.keys import DURATION, SIZE, TEXT, Schema, closed, listed, named, table_schema

_REFERENCE = r"^[A-Za-z_]\w*(\.[A-Za-z_]\w*)*\??$"
#: A value that a template makes: its type is known only once the run's params are.
_TEMPLATE: Schema = {"type": "string", "pattern": r"\$\{"}
#: What a profile cannot change.
_OWN = ("sage", "include", "profile")
#: Kinds whose schema says nothing but this.
_SCHEMAS: Mapping[str, Schema] = {
    "any": {},
    "none": {"type": "null"},
    "bool": {"type": "boolean"},
    "int": {"type": "integer"},
    "float": {"type": "number"},
    "str": {"type": "string"},
    "artifact": {"type": "string"},
    "bytes": {"type": "string", "contentEncoding": "base64"},
}


def workflow_schema(host: Host) -> Schema:
    """The schema; operators that cannot be imported or read are offered by name alone."""
    operators = tuple(host.operators)
    uses = ("join", *operators)
    known = [(name, found) for name in operators if (found := _signature(host, name)) is not None]
    whole = _sections(_step(uses, known), host)
    overlay = {name: schema for name, schema in _sections(_overlay(uses), host).items() if name not in _OWN}
    profile = closed(_partial(overlay), "Laid over the workflow by --profile NAME.")
    return {
        "$schema": "http://json-schema.org/draft-07/schema#",
        "title": "SAGE workflow",
        **closed({**whole, "profile": named(profile, "Profiles.")}, "A workflow.", ["sage"]),
        "definitions": _definitions(),
    }


def _partial(schema: Any) -> Any:
    """The schema of a table that may change some keys and leave the others as they are; a list is replaced whole."""
    if isinstance(schema, dict) and schema.get("type") != "array":
        return {
            key: _partial(entry)
            for key, entry in schema.items()
            # A property may have this name; what must be there is a list.
            if key != "required" or not isinstance(entry, list)
        }
    return [_partial(entry) for entry in schema] if isinstance(schema, list) else schema


def _signature(host: Host, name: str) -> Signature | None:
    try:
        return signature.of(host.operators[name])
    except (PluginError, BadSignature):
        return None


def _pool() -> Schema:
    """The keys of a model that say how many engines serve it, and how."""
    count = {"type": "integer", "minimum": 0}
    queue = {
        "type": "object",
        "description": "How much may wait; 0, or a key left out, is the gateway's own limit.",
        "properties": {"requests": count, "bytes": SIZE, "wait": DURATION},
        "additionalProperties": False,
    }
    return {
        "engines": listed(
            {"type": "object"}, description="One table for each engine; what it leaves out is as the model says."
        ),
        "min": {**count, "description": "Engines kept open; default: all where there are several, else none."},
        "idle": {**DURATION, "description": "Close an engine that has rested for so long; default: never."},
        "grow": {
            "type": "number",
            "description": "Engine-seconds of work that may wait for each open engine before another opens; default 5.",
        },
        "scheduler": {"type": "string", "description": "Policy of its requests; default: [scheduler] requests."},
        "queue": queue,
    }


def _sections(step: Schema, host: Host) -> Schema:
    table = table_schema(layout.model(tuple(host.backends)), "A model; other keys are the backend's.")
    model = {
        **table,
        "properties": {**table["properties"], **_pool()},
        # Every other key belongs to the backend, which checks it.
        "additionalProperties": True,
    }
    return {
        **{name: key.schema for name, key in layout.TOP.items()},
        "models": named(model, "Models that steps name, and who serves them."),
        "steps": named(step, "The steps."),
    }


def _definitions() -> Schema:
    reference = {"type": "string", "pattern": _REFERENCE}
    return {
        "reference": {
            "description": '"step.column", "params.x", "step.column?" (null if absent), or a list: the first present.',
            "anyOf": [reference, listed(reference, minItems=1)],
        },
        "duration": {
            "description": 'A duration: "250ms", "10m", "1h30m".',
            "type": "string",
            "pattern": r"^\s*(\d{1,12}(\.\d{1,6})?\s*(ms|s|m|h|d)\s*)+$",
        },
        "size": {
            "description": 'A size in bytes: 1048576, "512MB", "2GiB".',
            "anyOf": [
                {"type": "integer", "minimum": 0},
                {"type": "string", "pattern": r"^\s*\d{1,12}(\.\d{1,6})?\s*([kKMGTP]i?)?B\s*$"},
            ],
        },
    }


def _step(uses: Sequence[str], known: Sequence[tuple[str, Signature]]) -> Schema:
    return {**_overlay(uses), "required": ["use"], "allOf": [_join(), *(_operator(*entry) for entry in known)]}


def _overlay(uses: Sequence[str]) -> Schema:
    """A step, or a profile's changes to one, whose operator is not known."""
    properties = {name: key.schema for name, key in {**layout.JOIN, **layout.STEP}.items()}
    use = {"enum": list(uses), "description": "The operator."}
    return closed({**properties, "use": use}, "A step.")


def _join() -> Schema:
    return {
        "if": _uses("join"),
        "then": {
            "required": ["in", "on"],
            "properties": {"in": layout.JOIN["in"].schema},
            "propertyNames": {"enum": list(layout.JOIN)},
        },
        "else": {"propertyNames": {"enum": list(layout.STEP)}},
    }


def _operator(name: str, found: Signature) -> Schema:
    ports = {port.name: _port(port) for port in found.ports}
    options = {option.name: _option(option) for option in found.options}
    needed = [port.name for port in found.ports if port.required]
    then: Schema = {
        "properties": {
            "use": {"description": found.doc} if found.doc else {},
            "in": closed(ports, f"Ports of {name}.", needed),
            "with": closed(options, f"Options of {name}."),
            "matrix": closed({key: listed(value) for key, value in options.items()}, "Cells."),
        }
    }
    if needed:
        then["required"] = ["in"]
    # A required option may stand in `with` or in `matrix`.
    if given := [option.name for option in found.options if option.required]:
        tables = ("with", "matrix")
        then["allOf"] = [
            {"anyOf": [{"required": [table], "properties": {table: {"required": [name]}}} for table in tables]}
            for name in given
        ]
    return {"if": _uses(name), "then": then}


def _uses(name: str) -> Schema:
    return {"properties": {"use": {"const": name}}, "required": ["use"]}


def _port(port: Port) -> Schema:
    arrives = {"one": "per row", "batch": "per row", "dataset": "for all rows of a group"}[port.many]
    value = closed({"value": type_schema(port.type)}, "A literal.", ("value",))
    return {"description": f"{types.show(port.type)}, {arrives}", "anyOf": [{"$ref": "#/definitions/reference"}, value]}


def _option(option: Option) -> Schema:
    schema = type_schema(option.type)
    kind = "a name of [models]" if option.is_model else types.show(option.type)
    default = {} if option.required or option.default is None else {"default": option.default}
    # A text may be a template as it is, and so may anything.
    either = schema if schema in ({}, TEXT) else {"anyOf": [schema, _TEMPLATE]}
    return {**either, "description": kind, **default}


def type_schema(type_: Type) -> Schema:
    """JSON Schema (draft-07 keywords) of the values that fit."""
    schema = _schema(type_)
    if not type_.optional or type_.kind == "any":
        return schema
    if isinstance(schema.get("type"), str) and "enum" not in schema:
        return {**schema, "type": [schema["type"], "null"]}
    return {"anyOf": [schema, {"type": "null"}]}


def _schema(type_: Type) -> Schema:
    match type_.kind:
        case "literal":
            return {"enum": list(type_.values)}
        case "vector":
            size = {"minItems": type_.dim, "maxItems": type_.dim} if type_.dim else {}
            return {"type": "array", "items": {"type": "number"}, **size}
        case "list":
            return {"type": "array", "items": type_schema(type_.item or Type(kind="any"))}
        case "dict":
            return {"type": "object", "additionalProperties": type_schema(type_.item or Type(kind="any"))}
        case "record":
            return {
                "type": "object",
                "properties": {name: type_schema(field) for name, field in type_.fields.items()},
                "required": [name for name, field in type_.fields.items() if not field.optional],
                "additionalProperties": False,
            }
        case _:
            return dict(_SCHEMAS[type_.kind])
