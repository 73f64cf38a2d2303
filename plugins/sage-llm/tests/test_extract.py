"""Tests for `llm.extract`: what comes out satisfies the schema, or the row fails."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from sage_llm.extract import extract

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


@pytest.mark.parametrize("answer", ["NaN", "-Infinity", "1e999", '"\\ud800"', "{'a': 1}", "", "1 2", "[1,]"])
def test_what_json_does_not_allow_or_no_result_can_hold_is_refused(ctx: Any, answer: str) -> None:
    with pytest.raises(ValueError, match="model 'm' gave no valid JSON in two tries: not JSON: "):
        run(ctx, answer, answer, schema={})
    assert len(ctx.client.asked) == 2


@pytest.mark.parametrize("answer", ["[" * 20_000, "[" * 20_000 + "]" * 20_000, '{"a":' * 20_000])
def test_endless_brackets_are_an_invalid_answer_like_any_other(ctx: Any, answer: str) -> None:
    assert run(ctx, answer, "[]", schema={"type": "array"}) == []
    assert (
        "That is not valid: not JSON: it is nested too deeply. Answer again"
        in (ctx.client.asked[1]["messages"][2]["content"])
    )


@pytest.mark.parametrize(
    ("answer", "value"),
    [("null", None), ("0", 0), (" [ ] ", []), ('"wörld \\u00e9 🙂"', "wörld é 🙂"), ("```\n1\n```", 1)],
)
def test_any_json_value_is_one(ctx: Any, answer: str, value: object) -> None:
    assert run(ctx, answer, schema={}) == value
    assert len(ctx.client.asked) == 1


def test_a_schema_that_is_none_is_refused_before_any_call(ctx: Any) -> None:
    with pytest.raises(ValueError, match=r"option schema is no JSON Schema: \$\.type: 'text' is not valid"):
        run(ctx, schema={"type": "text"})
    assert ctx.client.asked == []
