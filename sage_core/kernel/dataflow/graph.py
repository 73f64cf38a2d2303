"""The typed graph a workflow becomes, and the records it is made of; built by `check`, read by `plan` and the executor.

Vocabulary: a *grain* is a level of rows; the run is the root grain, named ``""``, with one row that holds ``params``.
A step runs once per row of the deepest grain among its inputs. Everything here is data: frozen, encodable, no code.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import msgspec

from sage_core.common.records import ModelSpec, Record

#: Name of the run's grain.
RUN = ""

#: What a step does to rows. ``map`` keeps the grain, ``expand`` opens a child grain, ``filter`` keeps the grain and
#: drops rows, ``collect`` folds a group to one row of `per`, ``sink`` has no columns, ``join`` opens one with two.
Shape = Literal["map", "expand", "filter", "collect", "sink", "join"]


class Type(Record):
    """A port, option or column type, free of Python objects so that it can be stored and compared."""

    kind: Literal[
        "any", "none", "bool", "int", "float", "str", "bytes", "vector", "list", "dict", "record", "artifact", "literal"
    ]
    #: T | None.
    optional: bool = False
    #: list: the item; dict: the value.
    item: Type | None = None
    #: record: field name → type; total.
    fields: dict[str, Type] = {}
    #: record, artifact: the class's name; str: ``path`` when the annotation is pathlib.Path.
    name: str = ""
    #: artifact: ``module:qualname`` of the class.
    target: str = ""
    #: literal: the allowed values.
    values: tuple[str | int | bool, ...] = ()
    #: vector: its dimension, or 0 when it is not fixed.
    dim: int = 0


class Port(Record):
    """A positional parameter: varies per row. `many` says how rows arrive: one, a batch, or a whole group."""

    name: str
    type: Type
    many: Literal["one", "batch", "dataset"] = "one"
    #: Vectors arrive as one float32 block of shape (n, d) rather than a list of rows.
    block: bool = False
    required: bool = True
    #: A file system path, by the decorator's word or by annotation.
    is_path: bool = False


class Option(Record):
    """A keyword-only parameter: fixed per run."""

    name: str
    type: Type
    required: bool = True
    default: Any = None
    is_path: bool = False
    is_model: bool = False


class Signature(Record):
    """What `signature.of(operator)` reads from annotations; enough to check, plan, document and call an operator."""

    operator: str
    shape: Shape
    ports: tuple[Port, ...] = ()
    options: tuple[Option, ...] = ()
    #: Column name → type. A filter re-emits its ports.
    columns: dict[str, Type] = {}
    #: The return is a record: columns are its fields. False: one bare value under the single column's name.
    is_record: bool = False
    #: ``function``; ``callable`` = class with __call__ that holds something open; ``fold`` = class with add and finish.
    form: Literal["function", "callable", "fold"] = "function"
    #: The call takes and returns whole batches (`Batch[T] -> Batch[U]`).
    batched: bool = False
    #: ``async def`` (or an async generator for expand).
    is_async: bool = False
    wants_context: bool = False
    #: Methods of a class (``__init__``, ``__call__``, ``add``, ``finish``) with a keyword-only ``ctx``.
    context_in: tuple[str, ...] = ()
    #: Options that go to a class's ``__init__``; the others go to ``__call__``.
    init_options: tuple[str, ...] = ()
    #: A fold's ``finish`` takes a fresh `ArtifactDir`.
    takes_dir: bool = False
    #: Name of the parameter whose fields are the ports: the only batch or dataset parameter, of a record.
    record_port: str = ""
    pure: bool = True
    memo: bool = False
    #: The column that may be shown while its call writes it; empty is none.
    streamed: str = ""
    doc: str = ""


class Ref(Record):
    """A reference to a column: ``step.column.field…``; step ``params`` is the run's row.

    The empty column is the step's whole record: all of its columns, as one value.
    """

    step: str
    column: str
    fields: tuple[str, ...] = ()
    #: Written with a ``?``: absent becomes null.
    optional: bool = False


class Binding(Record):
    """What feeds a port: the first present reference of `refs` (more than one is a merge), else a literal."""

    refs: tuple[Ref, ...] = ()
    value: Any = None


class Grain(Record):
    """A level of rows: opened by the step of the same name under one parent, or two for a join."""

    name: str
    parents: tuple[str, ...] = ()


class Retry(Record):
    """How often a failing call is tried again. Delays in seconds; `on` lists causes."""

    max: int = 0
    base: float = 1.0
    cap: float = 60.0
    on: tuple[str, ...] = ("rate_limit", "timeout", "connection", "worker_lost")


class Repeat(Record):
    """A loop on one step: until the expression holds, at most `max` times; `feed` = port → own output column."""

    max: int
    until: str
    feed: dict[str, str] = {}


class Join(Record):
    """What a ``use = "join"`` step matches: pairs of columns that must be equal."""

    left: str
    right: str
    on: tuple[tuple[Ref, Ref], ...]
    how: Literal["inner", "left"] = "inner"


class Step(Record):
    """One checked step."""

    name: str
    use: str
    signature: Signature
    #: Grain whose rows it runs on, and grain of its columns (the same, a child, or for a collect an ancestor).
    grain: str
    out: str
    ports: dict[str, Binding] = {}
    #: `with`, templates still in place (`expressions.fill` resolves them once params are known), defaults filled in.
    options: dict[str, Any] = {}
    #: Type of each output column.
    columns: dict[str, Type] = {}
    #: Steps whose rows it takes without reading a column.
    rows: tuple[str, ...] = ()
    #: Steps that must be over before it starts.
    after: tuple[str, ...] = ()
    when: str = ""
    #: Columns that `when` reads.
    when_refs: tuple[Ref, ...] = ()
    #: Options bound per cell: one dict of option → value per row of the matrix; empty without a matrix.
    matrix: tuple[dict[str, Any], ...] = ()
    repeat: Repeat | None = None
    join: Join | None = None
    on_error: Literal["fail", "skip"] = "fail"
    #: Rows (count) or share (0 < x < 1) that may fail under "skip" before the run fails; None = no bound.
    max_errors: float | None = None
    retry: Retry = Retry()
    #: Seconds one call may take; None = no bound.
    timeout: float | None = None
    #: False: neither read from nor kept for later runs.
    cache: bool = True
    #: At most this many source rows a job; 0 = the default.
    partition: int = 0
    #: Rows per call of a batch operator; 0 = the default.
    batch_max: int = 0
    needs: dict[str, Any] = {}
    #: Jobs of all runs that name it share a number of places; empty = none.
    limit: str = ""
    checkpoint: bool = False


class Param(Record):
    """A declared run parameter."""

    name: str
    #: string, int, float, bool, path, list, or json.
    type: str
    required: bool = True
    default: Any = None
    choices: tuple[Any, ...] = ()
    min: float | None = None
    max: float | None = None
    description: str = ""
    #: The value never reaches store, log or artifact.
    secret: bool = False


class Trigger(Record):
    """A declared trigger; parsed and checked here, fired elsewhere."""

    kind: Literal["cron", "http"]
    settings: dict[str, Any] = {}


class Graph(Record):
    """A checked workflow."""

    name: str
    #: Absolute folder that relative paths start at.
    base: str
    params: dict[str, Param] = {}
    models: dict[str, ModelSpec] = {}
    grains: dict[str, Grain] = {}
    #: In an order in which every step comes after what it reads.
    steps: dict[str, Step] = {}
    outputs: dict[str, Binding] = {}
    #: Seconds from start to finish that the run aims at; None = none stated.
    end_to_end: float | None = None
    triggers: tuple[Trigger, ...] = ()
    #: Shown before a run: things that are legal and probably not meant.
    warnings: tuple[str, ...] = ()

    def lineage(self, grain: str) -> tuple[str, ...]:
        """The grain and all its ancestors, itself first, the run last."""
        return lineage(self.grains, grain)


def lineage(grains: Mapping[str, Grain], name: str) -> tuple[str, ...]:
    """A grain and all its ancestors, itself first, the run last."""
    seen: dict[str, None] = {}
    front = [name]
    while front:
        grain = front.pop(0)
        if grain not in seen and grain != RUN:
            seen[grain] = None
            front += grains[grain].parents
    return (*seen, RUN)


def encode(graph: Graph) -> bytes:
    """Canonical bytes of a graph: equal graphs have equal bytes (keys of steps keep their order)."""
    return msgspec.json.encode(graph)


def decode(data: bytes) -> Graph:
    """Undo `encode`."""
    return msgspec.json.decode(data, type=Graph)
