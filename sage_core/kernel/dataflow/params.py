"""Run parameters: their declarations in ``[params]``, the types of their columns, and what values they take."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any

from sage_core.common.errors import BadValue
from sage_core.kernel.dataflow import types
from sage_core.kernel.dataflow.diagnostics import one_of
from sage_core.kernel.dataflow.expressions import is_name
from sage_core.kernel.dataflow.graph import Param, Type
from sage_core.kernel.dataflow.keys import FLAG, NUMBER, TEXT, Key, kind, unstorable
from sage_core.kernel.dataflow.settings import Settings

#: Type names of ``[params]`` and the column type of each.
COLUMNS: Mapping[str, Type] = {
    "string": Type(kind="str"),
    "int": Type(kind="int"),
    "float": Type(kind="float"),
    "bool": Type(kind="bool"),
    "path": Type(kind="str"),
    "list": Type(kind="list", item=Type(kind="any")),
    "json": Type(kind="any"),
}
#: What people write for a type, and what it is called here.
_CALLED = {"str": "string", "text": "string", "integer": "int", "number": "float", "boolean": "bool", "file": "path"}
_WORDS = {"true": True, "yes": True, "on": True, "1": True, "false": False, "no": False, "off": False, "0": False}


def _type(name: Any) -> Any:
    if isinstance(name, str) and name in COLUMNS:
        return name
    shown = repr(name) if isinstance(name, str) else kind(name)
    close = f"write {_CALLED[name]!r}; " if isinstance(name, str) and name in _CALLED else ""
    raise BadValue(f"{shown} is not a type of params", close + one_of(str(name), tuple(COLUMNS), "types"))


def _choices(values: Any) -> tuple[Any, ...]:
    if not isinstance(values, list) or not values:
        raise BadValue(f"'choices' must be a list of values, not {kind(values)}")
    return tuple(values)


KEYS: Mapping[str, Key] = {
    "type": Key({"enum": list(COLUMNS)}, "What values it takes.", _type, needed=one_of("", tuple(COLUMNS), "types")),
    "default": Key({}, "Taken when a run gives no value."),
    "choices": Key({"type": "array", "minItems": 1}, "The only values allowed.", _choices),
    "min": Key(NUMBER),
    "max": Key(NUMBER),
    "description": Key(TEXT),
    "secret": Key(FLAG, "The value never reaches store, log or artifact."),
    "required": Key(FLAG),
}


def column(param: Param) -> Type:
    """The type that ``params.x`` has as a column."""
    plain = COLUMNS[param.type]
    return plain if param.required or param.default is not None else types.optional(plain)


def read(document: Settings) -> dict[str, Param]:
    """Check ``[params]``."""
    return {name: _read(name, settings) for name, settings in document.sections("params", "param")}


def _read(name: str, settings: Settings) -> Param:
    check_name("param", name, settings)
    given = {"type": "json", **settings.load(KEYS, f"param {name!r}")}
    for bound in ("min", "max"):
        if bound in settings and given["type"] not in ("int", "float", "json"):
            message = f"{bound!r} applies to int and float params, not to {given['type']}"
            settings.add(bound, message, part="key")
            given.pop(bound, None)
    if "min" in given and "max" in given and given["min"] > given["max"]:
        settings.add("max", f"'max' is {given['max']:g}, below 'min' {given['min']:g}")
        del given["min"], given["max"]
    given.setdefault("required", "default" not in given)
    param = Param(name=name, **given)
    for index, choice in enumerate(param.choices):
        problem = problem_of(param, choice)
        if problem:
            settings.problems.add((*settings.path, "choices", index), f"choice of param {name!r}: {problem}")
    if param.secret and param.type != "string":
        settings.add("secret", "a secret param is of type string", 'write type = "string"')
    if "default" in settings:
        _check_default(param, settings)
    return param


def _check_default(param: Param, settings: Settings) -> None:
    name, default = param.name, param.default
    if param.secret:
        help = f"it is read from {variable(name)}"
        settings.add("default", f"param {name!r} is secret and cannot have a default", help, "key")
    elif "required" in settings and param.required:
        settings.add("required", f"param {name!r} has a default, so it is not required", "remove one of the two", "key")
    elif problem := problem_of(param, default) or _not_chosen(param.choices, default):
        settings.add("default", f"default of param {name!r}: {problem}")
    elif isinstance(default, str) and "${" in default:
        settings.add("default", f"default of param {name!r}: a default is a plain value, not a template")


def check_name(noun: str, name: str, settings: Settings, reserved: tuple[str, ...] = ()) -> None:
    """Report a name that references and conditions could not use."""
    if name in reserved:
        settings.problems.add(settings.path, f"{name!r} cannot name a {noun}: it has a meaning of its own", part="key")
    elif not is_name(name):
        close = "".join(char if char.isascii() and char.isalnum() else "_" for char in name)
        help = f"write {close}" if is_name(close) else "use letters, digits and _"
        settings.problems.add(settings.path, f"{name!r} cannot name a {noun}", help, "key")


def variable(name: str) -> str:
    """The environment variable that a secret param is read from."""
    return f"SAGE_PARAM_{name.upper()}"


def problem_of(param: Param, value: Any) -> str:
    """What is wrong with a TOML or JSON value for a param; empty when it fits. Choices are not looked at."""
    if problem := unstorable(value):
        return problem
    problem = types.value_problem(value, COLUMNS[param.type])
    if problem or isinstance(value, bool) or not isinstance(value, (int, float)):
        return problem
    if param.min is not None and value < param.min:
        return f"{value} is below the minimum {param.min:g}"
    return f"{value} is above the maximum {param.max:g}" if param.max is not None and value > param.max else ""


def coerce(param: Param, given: object) -> object:
    """A command line's text, or a JSON value, as the param's type; raises `BadValue`."""
    value = _from_text(param, given) if isinstance(given, str) else given
    if param.type == "float" and isinstance(value, int) and not isinstance(value, bool):
        value = float(value)
    problem = problem_of(param, value) or _not_chosen(param.choices, value)
    if problem:
        raise BadValue(f"param {param.name!r}: {problem}", _help(param))
    return value


def _from_text(param: Param, text: str) -> object:
    plain = text.strip()
    try:
        match param.type:
            case "int":
                return int(plain)
            case "float":
                number = float(plain)
                if not math.isfinite(number):
                    raise ValueError(plain)
                return number
            case "bool":
                return _WORDS[plain.lower()]
            case "json":
                return json.loads(text)
            case "list":
                return (
                    json.loads(text) if plain.startswith("[") else [part.strip() for part in plain.split(",") if plain]
                )
            case _:
                return text
    except (ValueError, KeyError, RecursionError):
        raise BadValue(f"param {param.name!r}: {_short(text)} is not {_ARTICLES[param.type]}", _help(param)) from None


_ARTICLES = {"int": "an integer", "float": "a number", "bool": "true or false", "json": "JSON", "list": "a list"}


def _help(param: Param) -> str:
    if param.choices:
        return "one of: " + ", ".join(str(choice) for choice in param.choices)
    return {
        "json": """write JSON, a text in quotes: --param x='"text"'""",
        "list": "write a,b,c or a JSON list",
        "bool": "write true or false",
    }.get(param.type, "")


def _not_chosen(choices: tuple[Any, ...], value: object) -> str:
    fits = not choices or any(
        value == choice and isinstance(value, bool) is isinstance(choice, bool) for choice in choices
    )
    return "" if fits else f"{_short(value)} is not among the choices {', '.join(map(str, choices))}"


def _short(value: object) -> str:
    shown = repr(value)
    return shown if len(shown) <= 60 else shown[:59] + "…"
