"""What may stand in a workflow file: each table of it with its keys, for the checker, its help and the JSON Schema."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from sage_core.common import cron
from sage_core.common.errors import BadValue
from sage_core.kernel.dataflow import keys, params
from sage_core.kernel.dataflow.diagnostics import one_of
from sage_core.kernel.dataflow.expressions import compile_when
from sage_core.kernel.dataflow.keys import COUNT, DURATION, FLAG, NATURAL, SIZE, TABLE, TEXT, TEXTS, Key

Table = Mapping[str, Key]

#: How the columns of a join are written.
PAIRS = 'write on = { "left.column" = "right.column" }'
_SIDES = 'write in = { left = "step", right = "step" }'
_CAUSES = ["rate_limit", "timeout", "connection", "worker_lost", "error"]


def _causes(value: Any) -> tuple[str, ...]:
    causes = tuple(keys.read(TEXTS, "on", value))
    for cause in causes:
        if cause not in _CAUSES:
            raise BadValue(f"{cause!r} is no cause that can be retried", one_of(cause, _CAUSES, "causes"))
    return causes


def _max_errors(value: object) -> float:
    if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
        return float(value)
    if isinstance(value, str) and value.endswith("%"):
        share = value[:-1].strip()
        if share.replace(".", "", 1).isdecimal() and 0 < float(share) < 100:
            return float(share) / 100
    help = 'write a number of rows such as 10, or a share such as "1%"'
    raise BadValue(f"'max_errors' cannot be {keys.kind(value)}", help)


def _cache(value: object) -> bool:
    if isinstance(value, (str, bool)) and value in ("auto", "off", True, False):
        return value in ("auto", True)
    raise BadValue(f"'cache' cannot be {keys.kind(value)}", 'write "auto" or "off"')


def _schedule(text: object) -> object:
    cron.parse_cron(text)
    return text


def _matching(pattern: str, key: str, about: str, problem: str, help: str, needed: str = "") -> Key:
    """A key whose text matches a pattern whole."""

    def read(value: Any) -> str:
        text: str = keys.read(TEXT, key, value)
        if not re.fullmatch(pattern, text):
            raise BadValue(f"{text!r} {problem}", help)
        return text

    return Key({**TEXT, "pattern": f"^{pattern}$"}, about, read, needed)


def _format(value: object) -> object:
    if value != 1 or isinstance(value, bool):
        raise BadValue(f"format {keys.kind(value)} is unknown", "this version reads sage = 1")
    return value


# ---------------------------------------------------------------- steps

_CAUSE = {"enum": _CAUSES}
RETRY: Table = {
    "max": Key(NATURAL, "Further attempts."),
    "base": Key(DURATION),
    "cap": Key(DURATION),
    "on": Key({"anyOf": [_CAUSE, keys.listed(_CAUSE)]}, read=_causes),
}
NEEDS: Table = {
    "cpu": Key({**keys.NUMBER, "exclusiveMinimum": 0}, "Cores."),
    "memory": Key(SIZE),
    "gpu": Key(NATURAL),
    "gpu_memory": Key(SIZE, "Of each GPU."),
    "labels": Key(TEXTS),
}
REPEAT: Table = {
    "max": Key(COUNT, "Most rounds.", needed="a loop has a bound: max = 10"),
    "until": Key(TEXT, "Ends when this holds.", compile_when, needed='until = "done"'),
    "feed": Key({**TABLE, "additionalProperties": TEXT}, "Port → own column."),
}


_WORD = r"[\w.-]+"
_MAX_ERRORS = {"anyOf": [NATURAL, {**TEXT, "pattern": r"^\d*\.?\d+\s*%$"}]}
STEP: Table = {
    "use": Key(TEXT, "The operator.", needed='name an operator: use = "…"'),
    "in": Key(TABLE, "Port → what feeds it, row by row."),
    "with": Key(TABLE, "Option → value, the same for the whole run."),
    "rows": Key(TEXTS, "Steps whose rows it takes without reading a column."),
    "after": Key(TEXTS, "Steps that must be over first; takes no rows from them."),
    "when": Key(TEXT, 'Runs on rows where this holds: "len(parse.text) > 0".', compile_when),
    "batch": keys.table({"max": Key(COUNT, "Rows per call.")}, "Bounds a call of a batch operator."),
    "needs": keys.table(NEEDS, "What it needs of a node."),
    "retry": keys.table(RETRY, "How often a failing call is tried again.", "retry = { max = 3 }"),
    "timeout": Key(DURATION),
    "cache": Key({"enum": ["auto", "off", True, False]}, "off: neither read from nor kept for later runs.", _cache),
    "on_error": Key({"enum": ["fail", "skip"]}, "skip: a failing row is left out and reported."),
    "max_errors": Key(
        _MAX_ERRORS, 'Rows, or a share such as "1%", that may fail under on_error = "skip".', _max_errors
    ),
    "partition": Key(COUNT, "At most this many source rows a job."),
    "per": Key(TEXT, "Collect one row per row of this step; default: one for the run."),
    "matrix": Key(
        {**TABLE, "additionalProperties": {"type": "array", "minItems": 1}},
        "Options with a list of values each: one row per combination.",
    ),
    # Its keys are read once it is known whether the operator can be repeated.
    "repeat": Key(keys.table_schema(REPEAT, "Runs the step again on its own output.")),
    "limit": _matching(
        _WORD,
        "limit",
        "Its jobs share the places that [limits] NAME = N of sage.toml gives.",
        "is no name of a limit",
        "write letters, digits, '_', '-' or '.': limit = \"crm\"",
    ),
    "checkpoint": Key(FLAG, "Keep what is there at this point: a job of its own."),
}
SIDES: Table = {"left": Key(TEXT, "A step.", needed=_SIDES), "right": Key(TEXT, "A step.", needed=_SIDES)}
_PAIR = keys.listed(TEXT, minItems=2, maxItems=2)
_ON = {"anyOf": [{**TABLE, "minProperties": 1, "additionalProperties": TEXT}, keys.listed(_PAIR, minItems=1)]}
#: The keys of a join: its own, and those it shares with other steps.
JOIN: Table = {
    "use": STEP["use"],
    "in": Key(keys.table_schema(SIDES, "The two sides.")),
    "on": Key(_ON, 'Columns that must be equal: { "left.column" = "right.column" }.', needed=PAIRS),
    "how": Key({"enum": ["inner", "left"]}, "left: rows without a match stay."),
    **{key: STEP[key] for key in ("after", "needs", "retry", "timeout", "cache", "limit", "checkpoint", "partition")},
}

# ---------------------------------------------------------------- the sections beside them

DEFAULTS: Table = {key: STEP[key] for key in ("timeout", "retry", "on_error")}
CRON: Table = {
    "schedule": Key(TEXT, 'Five fields, such as "0 3 * * *".', _schedule, needed='such as schedule = "0 3 * * *"'),
    "timezone": Key(TEXT, 'Such as "Europe/Berlin"; default: UTC.', cron.check_zone),
    "overlap": Key({"enum": ["skip", "queue", "cancel_previous"]}, "When the run before is unfinished; default: skip."),
    "catchup": Key({"enum": ["none", "last", "all"]}, "Fire times that passed unseen; default: none."),
    "params": Key(TABLE, "Values of params for these runs."),
    "name": _matching(
        _WORD,
        "name",
        "Names its schedule; default: its place in the file.",
        "cannot name a trigger",
        "use letters, digits, '_', '-' and '.'",
    ),
}
HTTP: Table = {
    "path": _matching(
        r"/\S*", "path", "", "is not a path", "a path starts with / and has no spaces", 'such as path = "/ask"'
    ),
    "method": Key({"enum": ["GET", "POST", "PUT"]}),
}
TRIGGERS: Table = {
    "cron": Key(keys.listed(keys.table_schema(CRON, "Runs at times."))),
    "http": Key(keys.listed(keys.table_schema(HTTP, "Runs on request."))),
}
_PARAMS = "What a run is given: ${params.NAME} in `with`, params.NAME in `in`."
TOP: Table = {
    "sage": Key({"const": 1}, "Version of this format.", _format),
    "name": Key(TEXT, "The workflow's name; default: the file's."),
    "description": Key(TEXT, "What the workflow is for."),
    "params": Key(keys.named(keys.table_schema(params.KEYS, "A parameter."), _PARAMS)),
    # The schema of models, steps and profiles depends on what is installed.
    "models": Key(TABLE),
    "defaults": keys.table(DEFAULTS, "What holds where a step is silent."),
    "steps": Key(TABLE),
    "outputs": Key(keys.named({"$ref": "#/definitions/reference"}, "Results of the run; default: what nothing reads.")),
    "slo": keys.table({"end_to_end": Key(DURATION)}, "What the run aims at."),
    "include": Key(keys.listed(TEXT), "Files whose definitions belong to this one."),
    "profile": Key(TABLE),
    "triggers": Key(keys.table_schema(TRIGGERS, "What starts runs.")),
}


def model(backends: Sequence[str]) -> Table:
    """The keys of a model that do not belong to its backend."""

    def backend(value: Any) -> str:
        name: str = keys.read(TEXT, "backend", value)
        if name not in backends:
            raise BadValue(f"no backend is named {name!r}", one_of(name, backends))
        return name

    needed = one_of("", backends, "installed backends")
    return {
        "backend": Key({"enum": list(backends)}, "The plugin that runs it.", backend, needed),
        "source": Key(TEXT, 'Weights: a folder, "hf:org/name", a URL; default: what the backend finds by name.'),
        "needs": STEP["needs"],
    }
