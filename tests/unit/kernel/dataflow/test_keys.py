from __future__ import annotations

import datetime
import math
from typing import Any

import jsonschema  # type: ignore[import-untyped]
import pytest

from sage_core.common.errors import BadValue
from sage_core.kernel.dataflow.keys import (
    COUNT,
    DURATION,
    FLAG,
    NATURAL,
    NUMBER,
    SIZE,
    TABLE,
    TEXT,
    TEXTS,
    Key,
    Schema,
    kind,
    read,
    table,
    unstorable,
)

CORES: Schema = {**NUMBER, "exclusiveMinimum": 0}
CHOICE: Schema = {"enum": ["fast", "slow"]}


@pytest.mark.parametrize(
    ("shape", "value", "stands_for"),
    [
        (TEXT, "x", "x"),
        (FLAG, True, True),
        (COUNT, 3, 3),
        (NATURAL, 0, 0),
        (NUMBER, 2.5, 2.5),
        (NUMBER, -3, -3),
        (CORES, 0.5, 0.5),
        (CHOICE, "fast", "fast"),
        (TEXTS, ["x"], ["x"]),
        (TEXTS, "x", ["x"]),
        (DURATION, "10s", 10.0),
        (SIZE, "1kB", 1000),
        (TABLE, 3, 3),
        ({}, None, None),
    ],
)
def test_a_value_is_read_by_its_shape(shape: Schema, value: Any, stands_for: Any) -> None:
    assert read(shape, "k", value) == stands_for


WRONG: list[tuple[Schema, Any, str]] = [
    (TEXT, 3, "'k' must be a text, not 3"),
    (TEXT, True, "'k' must be a text, not true"),
    (FLAG, 1, "'k' must be true or false, not 1"),
    (COUNT, True, "'k' must be an integer, not true"),
    (COUNT, 0, "'k' must be at least 1, not 0"),
    (NATURAL, -1, "'k' must be at least 0, not -1"),
    (NUMBER, "x" * 50, "'k' must be a number, not a text"),
    (CORES, 0, "'k' must be above 0, not 0"),
    (CHOICE, "fats", "'k' cannot be 'fats'"),
    (CHOICE, [], "'k' cannot be a list"),
    (TEXTS, ["x", 1], "'k' must be a list of texts, not a list"),
    (TEXTS, {}, "'k' must be a list of texts, not a table"),
]


@pytest.mark.parametrize(("shape", "value", "problem"), WRONG)
def test_reader_and_schema_refuse_the_same_values(shape: Schema, value: Any, problem: str) -> None:
    with pytest.raises(BadValue) as error:
        read(shape, "k", value)
    assert error.value.problem == problem
    assert not jsonschema.Draft7Validator(shape).is_valid(value)


@pytest.mark.parametrize("value", [math.inf, -math.inf, math.nan])
def test_a_number_is_finite(value: float) -> None:
    with pytest.raises(BadValue, match="'k' must be a number, not"):
        read(NUMBER, "k", value)


def test_durations_and_sizes_say_what_they_are() -> None:
    with pytest.raises(BadValue, match="'x' is not a duration"):
        read(DURATION, "k", "x")
    with pytest.raises(BadValue, match="'x' is not a size"):
        read(SIZE, "k", "x")


def test_a_wrong_choice_names_the_right_ones() -> None:
    with pytest.raises(BadValue) as error:
        read(CHOICE, "k", "fats")
    assert error.value.help == "Did you mean 'fast'? one of: fast, slow"


def test_a_tables_schema_has_its_keys_what_they_are_for_and_which_must_be_there() -> None:
    made = table({"a": Key(COUNT, "How many.", needed="write a = 1"), "b": Key(TEXT)}, "A table.")
    assert made.schema == {
        "type": "object",
        "description": "A table.",
        "properties": {"a": {"type": "integer", "minimum": 1, "description": "How many."}, "b": {"type": "string"}},
        "required": ["a"],
        "additionalProperties": False,
    }


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (True, "true"),
        (3, "3"),
        (10**30, "10000000000000000000"),
        ("x", 'the text "x"'),
        ({}, "a table"),
        (None, "a NoneType"),
    ],
)
def test_values_in_sentences(value: object, shown: str) -> None:
    assert kind(value) == shown


@pytest.mark.parametrize(
    ("value", "problem"),
    [
        ({"a": [1, 2.5, "x", True, None]}, ""),
        ({"a": [datetime.date(2024, 1, 1)]}, "a TOML date is not supported; write it as a text"),
        ([{"a": math.nan}], "nan is not a number that can be stored"),
    ],
)
def test_what_cannot_be_stored(value: object, problem: str) -> None:
    assert unstorable(value) == problem
