from __future__ import annotations

import json
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, TypedDict

import jsonschema  # type: ignore[import-untyped]
import msgspec
import pytest

from sage_core import Dataset, Host, Vector, hookimpl, operator
from sage_core.cli.workflow_schema import type_schema, workflow_schema
from sage_core.common.errors import InvalidWorkflow
from sage_core.kernel.control_plane.pool_specs import PoolTable
from sage_core.kernel.dataflow import check, layout, types


@operator("t.lines", returns="line", paths=["path"])
def lines(*, path: str, limit: int = 10) -> Iterator[str]:
    """Read the lines of a file."""
    yield path


@operator("t.embed", returns="vector", models=["model"])
def embed(text: str, weight: float = 1.0, *, model: str, mode: Literal["a", "b"] = "a") -> Vector:
    raise NotImplementedError


@operator("t.mean", returns="mean")
def mean(vector: Dataset[Vector]) -> float:
    return 0.0


class Onnx:
    """Named by models; never opened here."""

    def identify(self, model: object) -> str:
        return ""

    def open(self, model: object) -> None: ...


class Plugin:
    @hookimpl
    def sage_operators(self) -> dict[str, str]:
        here = {"t.lines": "lines", "t.embed": "embed", "t.mean": "mean", "t.gone": "gone"}
        return {name: f"{__name__}:{attribute}" for name, attribute in here.items()}

    @hookimpl
    def sage_backends(self) -> dict[str, str]:
        return {"onnx": f"{__name__}:Onnx"}


@pytest.fixture(scope="module")
def host() -> Host:
    return Host({"test": Plugin()})


@pytest.fixture(scope="module")
def schema(host: Host) -> Mapping[str, Any]:
    made = workflow_schema(host)
    jsonschema.Draft7Validator.check_schema(made)
    return made


VALID = """
sage = 1
name = "valid"

[params]
docs = { type = "path" }
top = { type = "int", default = 3, min = 1 }

[models.minilm]
backend = "onnx"
source = "hf:a/b"
threads = 3
needs = { memory = "2GiB", cpu = 2 }
engines = [{ threads = 2 }, {}]
idle = "10m"
queue = { requests = 10, bytes = "1MiB", wait = "60s" }

[defaults]
timeout = "10m"
retry = { max = 3, base = "1s", on = ["rate_limit", "timeout", "worker_lost", "error"] }

[steps.lines]
use = "t.lines"
with = { path = "${params.docs}", limit = "${params.top}" }

[steps.embed]
use = "t.embed"
in = { text = "lines.line", weight = { value = 0.5 } }
with = { mode = "b" }
matrix = { model = ["minilm"] }
batch = { max = 16 }
on_error = "skip"
max_errors = "1%"
when = "len(lines.line) > 0"
cache = "off"

[steps.other]
use = "t.lines"
with = { path = "b" }
after = "lines"

[steps.both]
use = "join"
in = { left = "lines", right = "other" }
on = { "lines.line" = "other.line" }
how = "left"

[steps.mean]
use = "t.mean"
in = { vector = ["embed.vector"] }

[outputs]
mean = "mean.mean"

[slo]
end_to_end = "2s"

[[triggers.cron]]
schedule = "0 3 * * *"
params = { docs = "x" }

[profile.fast]
params.top.default = 5
models.minilm.source = "hf:a/c"
steps.embed.batch.max = 64
"""


def errors(schema: Mapping[str, Any], text: str) -> list[str]:
    found = jsonschema.Draft7Validator(schema).iter_errors(tomllib.loads(text))
    return [f"{'.'.join(map(str, error.path))}: {error.message}" for error in found]


def test_a_workflow_that_checks_is_valid(host: Host, schema: Mapping[str, Any], tmp_path: Path) -> None:
    file = tmp_path / "workflow.toml"
    file.write_text(VALID)
    check.load(file, host)
    check.load(file, host, profile="fast")
    assert errors(schema, VALID) == []


#: What is replaced in the valid workflow, by what, and where the schema then complains.
INVALID = [
    ("sage = 1", "sage = 2", "sage"),
    ('name = "valid"', 'title = "x"', ""),
    ('type = "int"', 'type = "integer"', "params.top.type"),
    ("min = 1 }", "minimum = 1 }", "params.top"),
    ('backend = "onnx"', 'backend = "onyx"', "models.minilm.backend"),
    ('"2GiB"', '"2 gigs"', "models.minilm.needs.memory"),
    ('timeout = "10m"', 'timeout = "ten"', "defaults.timeout"),
    ('use = "t.mean"', 'use = "t.median"', "steps.mean.use"),
    ("limit =", "limits =", "steps.lines.with"),
    ('limit = "${params.top}"', "limit = 2.5", "steps.lines.with.limit"),
    ('with = { path = "b" }', "with = { limit = 3 }", "steps.other"),
    ("{ value = 0.5 }", '{ value = "x" }', "steps.embed.in.weight"),
    ("{ value = 0.5 }", "0.5", "steps.embed.in.weight"),
    ("text = ", "texts = ", "steps.embed.in"),
    ('mode = "b"', 'mode = "c"', "steps.embed.with.mode"),
    ('model = ["minilm"]', 'mode = ["a"]', "steps.embed"),
    ('model = ["minilm"]', "model = [3]", "steps.embed.matrix.model.0"),
    ("batch = { max = 16 }", "batch = { max = -1 }", "steps.embed.batch.max"),
    ('"1%"', '"one"', "steps.embed.max_errors"),
    ('on_error = "skip"', 'on_error = "ignore"', "steps.embed.on_error"),
    ('cache = "off"', 'cache = "never"', "steps.embed.cache"),
    ('after = "lines"', 'how = "left"', "steps.other"),
    ('on = { "lines.line" = "other.line" }', "", "steps.both"),
    ('how = "left"', 'when = "true"', "steps.both"),
    ('["embed.vector"]', "[]", "steps.mean.in.vector"),
    ('["embed.vector"]', '"embed vector"', "steps.mean.in.vector"),
    ('in = { vector = ["embed.vector"] }', "", "steps.mean"),
    ('schedule = "0 3 * * *"', 'shedule = "0 3 * * *"', "triggers.cron.0"),
    ("steps.embed.batch.max = 64", "steps.embed.batches.max = 64", "profile.fast.steps.embed"),
]


@pytest.mark.parametrize(("old", "new", "place"), INVALID, ids=[f"{place}: {new}" for _, new, place in INVALID])
def test_a_wrong_key_or_value_is_marked_where_it_stands(
    host: Host, schema: Mapping[str, Any], tmp_path: Path, old: str, new: str, place: str
) -> None:
    assert old in VALID
    text = VALID.replace(old, new, 1)
    assert place in [error.partition(":")[0] for error in errors(schema, text)]
    file = tmp_path / "workflow.toml"
    file.write_text(text)
    with pytest.raises(InvalidWorkflow):
        check.load(file, host, profile="fast" if place.startswith("profile") else None)


def test_the_schema_knows_every_key_that_the_checker_knows(schema: Mapping[str, Any]) -> None:
    (step,) = schema["properties"]["steps"]["patternProperties"].values()
    assert set(step["properties"]) == {*layout.STEP, *layout.JOIN}
    assert set(schema["properties"]) == set(layout.TOP)


def test_operators_bring_their_docs_types_and_defaults(host: Host) -> None:
    made = workflow_schema(host)
    step = next(iter(made["properties"]["steps"]["patternProperties"].values()))
    then = {entry["if"]["properties"]["use"]["const"]: entry["then"] for entry in step["allOf"]}
    assert then["t.lines"]["properties"]["use"]["description"] == "Read the lines of a file."
    assert then["t.lines"]["properties"]["with"]["properties"]["limit"]["default"] == 10
    assert then["t.embed"]["properties"]["in"]["required"] == ["text"]
    assert then["t.embed"]["properties"]["with"]["properties"]["model"]["description"] == "a name of [models]"
    assert "Vector, for all rows of a group" in json.dumps(then["t.mean"])


def test_an_operator_that_cannot_be_imported_is_offered_by_name(host: Host, schema: Mapping[str, Any]) -> None:
    assert errors(schema, 'sage = 1\n[steps.a]\nuse = "t.gone"\nwith = { anything = 1 }\n') == []


def objects(schema: Any, path: str = "") -> Iterator[tuple[str, Mapping[str, Any]]]:
    if isinstance(schema, dict):
        if schema.get("type") == "object" and "properties" in schema:
            yield path, schema
        for key, entry in schema.items():
            yield from objects(entry, f"{path}/{key}")
    elif isinstance(schema, list):
        for place, entry in enumerate(schema):
            yield from objects(entry, f"{path}/{place}")


def test_only_models_take_keys_that_the_schema_does_not_know(host: Host) -> None:
    found = list(objects(workflow_schema(host)))
    assert len(found) > 20
    assert all("/models/" in path for path, schema in found if schema.get("additionalProperties") is not False)


class Passage(TypedDict):
    text: str
    score: float


@pytest.mark.parametrize(
    ("annotation", "good", "bad"),
    [
        (str | None, None, 3),
        (Literal["a", None], None, "b"),
        (list[int], [1, 2], ["a"]),
        (dict[str, float], {"a": 0.5}, {"a": "b"}),
        (Passage, {"text": "a", "score": 1.0}, {"text": "a"}),
        (Passage, {"text": "a", "score": 1.0}, {"text": "a", "score": 1.0, "other": 1}),
        (Annotated[Vector, 2], [0.0, 1.0], [0.0]),
        (bool, True, 1),
    ],
)
def test_the_schema_admits_what_fits_and_nothing_else(annotation: Any, good: Any, bad: Any) -> None:
    schema = type_schema(types.of(annotation))
    jsonschema.validate(good, schema, cls=jsonschema.Draft7Validator)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(bad, schema, cls=jsonschema.Draft7Validator)


@pytest.mark.parametrize(
    ("key", "value"), [("min", "two"), ("engines", 2), ("idle", "soon"), ("queue", {"request": 1}), ("grow", "x")]
)
def test_the_keys_of_a_pool_are_described_and_checked(schema: Mapping[str, Any], key: str, value: object) -> None:
    (model,) = schema["properties"]["models"]["patternProperties"].values()
    assert {field.name for field in msgspec.structs.fields(PoolTable)} <= model["properties"].keys()
    document = tomllib.loads(VALID)
    jsonschema.validate(document, dict(schema))
    document["models"]["minilm"][key] = value
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(document, dict(schema))
