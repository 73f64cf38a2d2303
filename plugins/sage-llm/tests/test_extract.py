"""Tests for `llm.extract`: what comes out satisfies the schema, or the row fails."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from sage_llm.extract import extract
from sage_llm.schema import validator

SCHEMA = {
    "type": "object",
    "properties": {"name": {"type": "string"}, "age": {"type": "integer"}},
    "required": ["name", "age"],
}


def run(ctx: Any, *answers: str, schema: dict[str, Any] = SCHEMA, **options: Any) -> Any:
    ctx.client.answers = list(answers)
    return asyncio.run(extract("Ada is 36.", model="m", schema=schema, ctx=ctx, **options))


@pytest.mark.parametrize("answer", ['{"name": "Ada", "age": 36}', '```json\n{"name": "Ada", "age": 36}\n```'])
def test_valid_json_is_the_value(ctx: Any, answer: str) -> None:
    assert run(ctx, answer) == {"name": "Ada", "age": 36}
    assert len(ctx.client.asked) == 1


def test_the_model_sees_schema_and_text_and_is_constrained(ctx: Any) -> None:
    run(ctx, '{"name": "Ada", "age": 36}', instruction="Who?", seed=3)
    asked = ctx.client.asked[0]
    assert asked["schema"] == SCHEMA
    assert asked["seed"] == 3
    content = asked["messages"][0]["content"]
    assert content.startswith("Who?\n")
    assert json.dumps(SCHEMA) in content
    assert content.endswith("Text:\nAda is 36.")


def test_an_invalid_answer_is_asked_for_once_more_with_the_reason(ctx: Any) -> None:
    assert run(ctx, '{"name": "Ada", "age": "36"}', '{"name": "Ada", "age": 36}') == {"name": "Ada", "age": 36}
    again = ctx.client.asked[1]["messages"]
    assert again[1] == {"role": "assistant", "content": '{"name": "Ada", "age": "36"}'}
    assert "$.age: '36' is not of type 'integer'" in again[2]["content"]


def test_two_invalid_answers_fail_the_row(ctx: Any) -> None:
    with pytest.raises(
        ValueError, match=r"model 'm' gave no valid JSON in two tries: \$: 'age' is a required property"
    ):
        run(ctx, "Sure, here it is", '{"name": "Ada"}')
    assert "not JSON: " in ctx.client.asked[1]["messages"][2]["content"]


def test_a_cut_answer_says_so(ctx: Any) -> None:
    with pytest.raises(ValueError, match=r"\(the answer was cut at max_tokens = 2\)"):
        run(ctx, '{"name": "Ada"', '{"name": "Ada"', max_tokens=2)


def test_constants_that_are_not_json_are_refused(ctx: Any) -> None:
    with pytest.raises(ValueError, match="not JSON: NaN is not JSON"):
        run(ctx, "NaN", "NaN", schema={"type": "number"})


def test_a_schema_that_is_none_is_refused_before_any_call(ctx: Any) -> None:
    with pytest.raises(ValueError, match=r"option schema is no JSON Schema: \$\.type: 'text' is not valid"):
        run(ctx, schema={"type": "text"})
    assert ctx.client.asked == []


def test_references_inside_are_followed_and_outside_are_not() -> None:
    inside = validator({"$defs": {"n": {"type": "integer"}}, "items": {"$ref": "#/$defs/n"}})
    assert inside([1, 2]) == ""
    assert inside([1, "x"]) == "$[1]: 'x' is not of type 'integer'"
    with pytest.raises(ValueError, match="references must lie inside the schema"):
        validator({"$ref": "http://localhost:9/other.json"})(1)
