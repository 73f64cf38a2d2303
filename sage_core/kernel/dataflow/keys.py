"""Keys of a workflow's tables: each says as JSON Schema what it may hold, and a value is read by that."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from sage_core.common.errors import BadValue
from sage_core.kernel.dataflow import units
from sage_core.kernel.dataflow.diagnostics import one_of

Schema = dict[str, Any]

TEXT: Schema = {"type": "string"}
FLAG: Schema = {"type": "boolean"}
NUMBER: Schema = {"type": "number"}
COUNT: Schema = {"type": "integer", "minimum": 1}
NATURAL: Schema = {"type": "integer", "minimum": 0}
#: A single text counts as a list of one.
TEXTS: Schema = {"anyOf": [TEXT, {"type": "array", "items": TEXT}]}
DURATION: Schema = {"$ref": "#/definitions/duration"}
SIZE: Schema = {"$ref": "#/definitions/size"}
TABLE: Schema = {"type": "object"}

_NAME = r"^[A-Za-z_][A-Za-z0-9_]*$"
_KINDS = {bool: "true or false", int: "an integer", float: "a number", str: "a text", list: "a list", dict: "a table"}


class Key(NamedTuple):
    """One key of a table."""

    #: What it may hold.
    shape: Schema
    about: str = ""
    #: From a value to what it stands for, where the shape alone does not say; raises `BadValue`.
    read: Callable[[Any], Any] | None = None
    #: Where the key must be there: help when it is not.
    needed: str = ""
    #: The keys of the table that it holds, and help for a value that is no table.
    keys: Mapping[str, Key] | None = None
    example: str = ""

    @property
    def schema(self) -> Schema:
        """What an editor is told."""
        return {**self.shape, "description": self.about} if self.about else self.shape


def table(keys: Mapping[str, Key], about: str, example: str = "") -> Key:
    """A table with keys of its own."""
    return Key(table_schema(keys, about), keys=keys, example=example)


def table_schema(keys: Mapping[str, Key], about: str) -> Schema:
    """The schema of a table that takes these keys and no others."""
    required = [name for name, key in keys.items() if key.needed]
    return closed({name: key.schema for name, key in keys.items()}, about, required)


def closed(properties: Schema, about: str, required: Sequence[str] = ()) -> Schema:
    """The schema of a table that takes these properties and no others."""
    needed = {"required": list(required)} if required else {}
    return {**TABLE, "description": about, "properties": properties, **needed, "additionalProperties": False}


def named(entry: Schema, about: str) -> Schema:
    """The schema of a table whose keys are names that the author chooses."""
    return {**closed({}, about), "patternProperties": {_NAME: entry}}


def listed(item: Schema, **more: Any) -> Schema:
    """The schema of a list."""
    return {"type": "array", "items": item, **more}


def read(shape: Schema, key: str, value: Any) -> Any:
    """What a key's value stands for by its shape; any other shape takes every value. Raises `BadValue`."""
    match shape:
        case {"enum": choices}:
            if value not in choices:
                shown = f"{value!r}" if isinstance(value, str) else kind(value)
                raise BadValue(f"{key!r} cannot be {shown}", one_of(str(value), choices, "one of"))
        case {"type": "string"}:
            _typed(str, key, value)
        case {"type": "boolean"}:
            _typed(bool, key, value)
        case {"type": "integer", "minimum": least}:
            _typed(int, key, value)
            if value < least:
                raise BadValue(f"{key!r} must be at least {least}, not {value}")
        case {"type": "number"}:
            if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
                raise BadValue(f"{key!r} must be a number, not {kind(value)}")
            if value <= shape.get("exclusiveMinimum", -math.inf):
                raise BadValue(f"{key!r} must be above {shape['exclusiveMinimum']}, not {value:g}")
        case {"anyOf": [{"type": "string"}, {"type": "array"}]}:
            return _texts(key, value)
        case {"$ref": "#/definitions/duration"}:
            return units.seconds(value)
        case {"$ref": "#/definitions/size"}:
            return units.size(value)
    return value


def _typed(wanted: type, key: str, value: object) -> None:
    if not isinstance(value, wanted) or (isinstance(value, bool) and wanted is not bool):
        raise BadValue(f"{key!r} must be {_KINDS[wanted]}, not {kind(value)}")


def _texts(key: str, value: Any) -> list[str]:
    if isinstance(value, str):
        return [value]
    if not isinstance(value, (list, tuple)) or not all(isinstance(item, str) for item in value):
        raise BadValue(f"{key!r} must be a list of texts, not {kind(value)}")
    return list(value)


def kind(value: object) -> str:
    """A value as diagnostics call it: texts and numbers are shown, others named by their kind."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return f'the text "{value}"' if len(value) < 40 else "a text"
    if isinstance(value, (int, float)):
        return f"{value:.20g}" if isinstance(value, float) else f"{value!s:.20}"
    return _KINDS.get(type(value), f"a {type(value).__name__}")


def unstorable(value: object) -> str:
    """What in a value cannot be kept as JSON: dates, infinities; empty when nothing is."""
    if isinstance(value, dict):
        return next((found for entry in value.values() if (found := unstorable(entry))), "")
    if isinstance(value, list):
        return next((found for entry in value if (found := unstorable(entry))), "")
    if isinstance(value, float) and not math.isfinite(value):
        return f"{value} is not a number that can be stored"
    if isinstance(value, int) and not -(2**63) <= value < 2**63:
        return f"{value} has more than 64 bits"
    if value is None or isinstance(value, (str, int, float)):
        return ""
    return f"a TOML {type(value).__name__} is not supported; write it as a text"
