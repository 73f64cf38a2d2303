"""Tests for holding a value against a JSON Schema."""

from __future__ import annotations

from typing import Any

import pytest
from sage_llm.schema import validator

DRAFT_7 = "http://json-schema.org/draft-07/schema#"


@pytest.mark.parametrize(
    ("schema", "value", "problem"),
    [
        ({}, None, ""),
        ({"type": "integer"}, 1.0, ""),
        ({"type": "integer"}, True, "$: True is not of type 'integer'"),
        ({"items": {"minLength": 2}}, ["語語", "語"], "$[1]: '語' is too short"),
        ({"properties": {"ä b": {"enum": ["x"]}}}, {"ä b": "y"}, "$['ä b']: 'y' is not one of ['x']"),
        ({"required": ["a"], "properties": {"b": {"type": "null"}}}, {"b": 1}, "$: 'a' is a required property"),
        (
            {"properties": {"b": {"type": "null"}, "a": {"type": "null"}}},
            {"b": 1, "a": 1},
            "$.a: 1 is not of type 'null'",
        ),
        ({"$schema": DRAFT_7, "items": [{"type": "null"}]}, [1], "$[0]: 1 is not of type 'null'"),
    ],
)
def test_the_first_problem_is_named_by_its_place(schema: dict[str, Any], value: Any, problem: str) -> None:
    assert validator(schema)(value) == problem


def test_references_inside_are_followed_and_outside_are_not() -> None:
    inside = validator({"$defs": {"n": {"type": "integer"}}, "items": {"$ref": "#/$defs/n"}})
    assert inside([1, 2]) == ""
    assert inside([1, "x"]) == "$[1]: 'x' is not of type 'integer'"
    with pytest.raises(ValueError, match="references must lie inside the schema"):
        validator({"$ref": "http://localhost:9/other.json"})(1)


@pytest.mark.parametrize(
    ("schema", "problem"),
    [
        ({"type": "text"}, r"option schema is no JSON Schema: \$\.type: 'text' is not valid"),
        ({"pattern": "["}, r"option schema is no JSON Schema: \$\.pattern: '\[' is not a 'regex'"),
        ({"$schema": DRAFT_7, "minLength": -1}, r"\$\.minLength: -1 is less than the minimum of 0"),
        ({"$schema": "http://example.org/x"}, r"\$schema = 'http://example\.org/x' names no dialect .* leave it out"),
        ({"$schema": ""}, r"\$schema = '' names no dialect"),
        ({"$schema": ["x"]}, r"\$schema = \['x'\] names no dialect"),
    ],
)
def test_a_schema_that_is_none_is_refused_when_it_is_read(schema: dict[str, Any], problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        validator(schema)


def test_a_reference_that_leads_back_to_itself_is_named() -> None:
    with pytest.raises(ValueError, match="option schema: a reference leads back to itself, or the value is nested"):
        validator({"$ref": "#"})(1)
