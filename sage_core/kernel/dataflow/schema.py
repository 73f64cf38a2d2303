"""A JSON Schema of workflow files for editors, made from the operators and backends that are installed.

Only draft-07 keywords are used, and what draft-04 tools do not know (``if``, ``const``) they ignore without harm.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sage_core.common.errors import BadSignature, PluginError
from sage_core.common.host import Host
from sage_core.kernel.dataflow import draft, params, signature, types
from sage_core.kernel.dataflow.graph import Option, Port, Signature

Schema = dict[str, Any]

_NAME = r"^[A-Za-z_][A-Za-z0-9_]*$"
_REFERENCE = r"^[A-Za-z_]\w*(\.[A-Za-z_]\w*)*\??$"
#: A value that a template makes: its type is known only once the run's params are.
_TEMPLATE: Schema = {"type": "string", "pattern": r"\$\{"}
_TEXT: Schema = {"type": "string"}
_TEXTS: Schema = {"anyOf": [_TEXT, {"type": "array", "items": _TEXT}]}
_FLAG: Schema = {"type": "boolean"}
#: Keys of a step that may stand in ``[defaults]``.
_DEFAULTS = ("timeout", "retry", "on_error")


def workflow_schema(host: Host) -> Schema:
    """The schema; operators that cannot be imported or read are offered by name alone."""
    operators = tuple(host.operators)
    known = [(name, found) for name in operators if (found := _signature(host, name)) is not None]
    step = _step(("join", *operators), known)
    top = _top(step, host)
    overlay = _top(_overlay(("join", *operators)), host)
    for own in ("sage", "include"):
        del overlay[own]
    return {
        "$schema": "http://json-schema.org/draft-07/schema#",
        "title": "SAGE workflow",
        **_table(
            {**top, "profile": _named(_table(overlay, "Laid over the workflow by --profile NAME."), "Profiles.")},
            "A workflow.",
            ("sage",),
        ),
        "definitions": _definitions(),
    }


def _signature(host: Host, name: str) -> Signature | None:
    try:
        return signature.of(host.operators[name])
    except (PluginError, BadSignature):
        return None


def _top(step: Schema, host: Host) -> Schema:
    return {
        "sage": {"const": 1, "description": "Version of this format."},
        "name": _doc(_TEXT, "The workflow's name; default: the file's."),
        "description": _doc(_TEXT, "What the workflow is for."),
        "include": _doc(_list(_TEXT), "Files whose definitions belong to this one."),
        "params": _named(_param(), "What a run is given: ${params.NAME} in `with`, params.NAME in `in`."),
        "models": _named(_model(tuple(host.backends)), "Models that steps name, and who serves them."),
        "defaults": _table({key: _SETTINGS[key] for key in _DEFAULTS}, "What holds where a step is silent."),
        "steps": _named(step, "The steps."),
        "outputs": _named({"$ref": "#/definitions/reference"}, "Results of the run; default: what nothing reads."),
        "slo": _table({"end_to_end": _ref("duration")}, "What the run aims at."),
        "triggers": _table({"cron": _list(_CRON), "http": _list(_HTTP)}, "What starts runs."),
    }


def _definitions() -> Schema:
    reference = {"type": "string", "pattern": _REFERENCE}
    return {
        "reference": {
            "description": '"step.column", "params.x", "step.column?" (null if absent), or a list: the first present.',
            "anyOf": [reference, {"type": "array", "items": reference, "minItems": 1}],
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


# ---------------------------------------------------------------- the sections beside the steps


def _param() -> Schema:
    number = {"type": "number"}
    keys = {
        "type": {"enum": list(params.COLUMNS), "description": "What values it takes."},
        "default": {"description": "Taken when a run gives no value."},
        "choices": {"type": "array", "minItems": 1, "description": "The only values allowed."},
        "min": number,
        "max": number,
        "description": _TEXT,
        "secret": _doc(_FLAG, "The value never reaches store, log or artifact."),
        "required": _FLAG,
    }
    return _table(keys, "A parameter.", ("type",))


def _model(backends: Sequence[str]) -> Schema:
    keys = {
        "backend": {"enum": list(backends), "description": "The plugin that runs it."},
        "source": _doc(_TEXT, 'Weights: a folder, "hf:org/name", a URL; default: what the backend finds by name.'),
        "needs": _SETTINGS["needs"],
    }
    # Every other key belongs to the backend, which checks it.
    return {**_table(keys, "A model; other keys are the backend's.", ("backend",)), "additionalProperties": True}


def _table(keys: Schema, description: str, required: Sequence[str] = ()) -> Schema:
    needed = {"required": list(required)} if required else {}
    return {
        "type": "object", "description": description, "properties": keys, **needed, "additionalProperties": False,
    }  # fmt: skip


def _named(entry: Schema, description: str) -> Schema:
    return {**_table({}, description), "patternProperties": {_NAME: entry}}


def _list(item: Schema) -> Schema:
    return {"type": "array", "items": item}


def _doc(schema: Schema, description: str) -> Schema:
    return {**schema, "description": description}


def _ref(name: str) -> Schema:
    return {"$ref": f"#/definitions/{name}"}


_CAUSE: Schema = {"enum": ["rate_limit", "timeout", "worker_lost", "error"]}
_COUNT: Schema = {"type": "integer", "minimum": 1}

_PAIR: Schema = {"type": "array", "items": _TEXT, "minItems": 2, "maxItems": 2}

_CRON = _table(
    {
        "schedule": _doc(_TEXT, 'Five fields, such as "0 3 * * *".'),
        "timezone": _doc(_TEXT, 'Such as "Europe/Berlin"; default: UTC.'),
        "overlap": {"enum": ["skip", "queue", "cancel_previous"]},
        "catchup": {"enum": ["none", "last", "all"]},
        "params": {"type": "object", "description": "Values of params for these runs."},
    },
    "Runs at times.",
    ("schedule",),
)
_HTTP = _table(
    {"path": {"type": "string", "pattern": r"^/\S*$"}, "method": {"enum": ["GET", "POST", "PUT"]}},
    "Runs on request.",
    ("path",),
)

#: Keys of a step that do not depend on its operator.
_SETTINGS: Schema = {
    "rows": _doc(_TEXTS, "Steps whose rows it takes without reading a column."),
    "after": _doc(_TEXTS, "Steps that must be over first; takes no rows from them."),
    "when": _doc(_TEXT, 'Runs on rows where this holds: "len(parse.text) > 0".'),
    "batch": _table({"max": _doc(_COUNT, "Rows per call.")}, "Bounds a call of a batch operator."),
    "needs": _table(
        {
            "cpu": {"type": "number", "exclusiveMinimum": 0, "description": "Cores."},
            "memory": _ref("size"),
            "gpu": {"type": "integer", "minimum": 0},
            "labels": _TEXTS,
        },
        "What it needs of a node.",
    ),
    "retry": _table(
        {
            "max": {"type": "integer", "minimum": 0, "description": "Further attempts."},
            "base": _ref("duration"),
            "cap": _ref("duration"),
            "on": {"anyOf": [_CAUSE, {"type": "array", "items": _CAUSE}]},
        },
        "How often a failing call is tried again.",
    ),
    "timeout": _ref("duration"),
    "cache": {"enum": ["auto", "off", True, False], "description": "off: neither read from nor kept for later runs."},
    "on_error": {"enum": ["fail", "skip"], "description": "skip: a failing row is left out and reported."},
    "max_errors": {
        "description": 'Rows, or a share such as "1%", that may fail under on_error = "skip".',
        "anyOf": [{"type": "integer", "minimum": 0}, {"type": "string", "pattern": r"^\d*\.?\d+\s*%$"}],
    },
    "partition": _doc(_COUNT, "At most this many source rows a job."),
    "per": _doc(_TEXT, "Collect one row per row of this step; default: one for the run."),
    "matrix": {
        "type": "object",
        "description": "Options with a list of values each: one row per combination.",
        "additionalProperties": {"type": "array", "minItems": 1},
    },
    "repeat": _table(
        {
            "max": _doc(_COUNT, "Most rounds."),
            "until": _doc(_TEXT, "Ends when this holds."),
            "feed": {"type": "object", "additionalProperties": _TEXT, "description": "Port → own column."},
        },
        "Runs the step again on its own output.",
        ("max", "until"),
    ),
    "checkpoint": _doc(_FLAG, "Keep what is there at this point: a job of its own."),
}


# ---------------------------------------------------------------- steps


def _step(uses: Sequence[str], known: Sequence[tuple[str, Signature]]) -> Schema:
    return {**_overlay(uses), "required": ["use"], "allOf": [_join(), *(_operator(*entry) for entry in known)]}


def _overlay(uses: Sequence[str]) -> Schema:
    """A step, or a profile's changes to one, whose operator is not known."""
    keys = {
        "use": {"enum": list(uses), "description": "The operator."},
        "in": {"type": "object", "description": "Port → what feeds it, row by row."},
        "with": {"type": "object", "description": "Option → value, the same for the whole run."},
        **_SETTINGS,
        "on": {
            "description": 'Columns that must be equal: { "left.column" = "right.column" }.',
            "anyOf": [
                {"type": "object", "minProperties": 1, "additionalProperties": _TEXT},
                {"type": "array", "minItems": 1, "items": _PAIR},
            ],
        },
        "how": {"enum": ["inner", "left"], "description": "left: rows without a match stay."},
    }
    return _table(keys, "A step.")


def _join() -> Schema:
    sides = {"left": _doc(_TEXT, "A step."), "right": _doc(_TEXT, "A step.")}
    return {
        "if": _uses("join"),
        "then": {
            "required": ["in", "on"],
            "properties": {"in": _table(sides, "The two sides.", ("left", "right"))},
            "propertyNames": {"enum": list(draft.JOIN_KEYS)},
        },
        "else": {"propertyNames": {"enum": list(draft.KEYS)}},
    }


def _operator(name: str, found: Signature) -> Schema:
    ports = {port.name: _port(port) for port in found.ports}
    options = {option.name: _option(option) for option in found.options}
    needed = [port.name for port in found.ports if port.required]
    then: Schema = {
        "properties": {
            "use": {"description": found.doc} if found.doc else {},
            "in": _table(ports, f"Ports of {name}.", needed),
            "with": _table(options, f"Options of {name}."),
            "matrix": _table({key: _list(value) for key, value in options.items()}, "Cells."),
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
    value = _table({"value": types.json_schema(port.type)}, "A literal.", ("value",))
    return {"description": f"{types.show(port.type)}, {arrives}", "anyOf": [_ref("reference"), value]}


def _option(option: Option) -> Schema:
    schema = types.json_schema(option.type)
    kind = "a name of [models]" if option.is_model else types.show(option.type)
    default = {} if option.required or option.default is None else {"default": option.default}
    # A text may be a template as it is, and so may anything.
    either = schema if schema in ({}, _TEXT) else {"anyOf": [schema, _TEMPLATE]}
    return {**either, "description": kind, **default}
