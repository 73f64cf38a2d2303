from __future__ import annotations

from typing import Any

import msgspec
import pytest
from sage_gateway.asked import Chat, Completion, same
from sage_gateway.errors import ApiError


def chat(**fields: Any) -> Chat:
    return msgspec.convert({"model": "m", "messages": [{"role": "user", "content": "a"}], **fields}, Chat)


def test_nulls_are_what_was_not_said() -> None:
    fields = dict.fromkeys(("stream", "stream_options", "n", "max_tokens", "temperature", "stop", "seed", "tools"))
    asked = chat(**fields)
    assert (asked.limit, asked.stops, asked.wants_usage, list(asked.extras)) == (1_024, (), False, [])


def test_the_later_name_of_the_limit_goes_first() -> None:
    assert chat(max_tokens=5, max_completion_tokens=7).limit == 7
    assert chat(max_tokens=5).limit == 5
    assert msgspec.convert({"model": "m", "prompt": "a"}, Completion).limit == 16


def test_a_schema() -> None:
    schema = {"type": "object", "required": ["a"]}
    assert chat(response_format={"type": "json_schema", "json_schema": {"schema": schema}}).schema == schema
    assert chat(response_format={"type": "json_object"}).schema == {"type": "object"}
    assert chat(response_format={"type": "text"}).schema is None
    with pytest.raises(ApiError):
        chat(response_format={"type": "json_schema", "json_schema": 3}).schema  # noqa: B018 - reading it is the test


def test_messages_as_plain_texts() -> None:
    parts = [{"type": "text", "text": "a"}, {"type": "image_url", "image_url": {}}, {"type": "text", "text": "b"}]
    asked = chat(messages=[{"role": "developer", "content": "be"}, {"role": "user", "content": parts}])
    assert asked.plain == ({"role": "system", "content": "be"}, {"role": "user", "content": "ab"})
    assert list(asked.extras) == ["messages"]


@pytest.mark.parametrize(
    ("prompt", "one_kind"), [("a", True), (["a", "b"], True), ([1], True), ([[1], [2]], True), (["a", 1], False)]
)
def test_prompts_of_one_kind(prompt: Any, one_kind: bool) -> None:
    assert same(prompt) is one_kind


@pytest.mark.parametrize(
    ("fields", "most"),
    [
        ({"prompt": "a"}, 16),
        ({"prompt": "a", "n": 3, "max_tokens": 5}, 15),
        ({"prompt": ["a", "b"], "best_of": 4, "n": 2}, 2 * 4 * 16),
        ({"prompt": [1, 2, 3]}, 16),
        ({"prompt": [[1, 2], [3]]}, 32),
        ({"prompt": []}, 16),
    ],
)
def test_what_all_answers_of_a_request_may_have(fields: dict[str, Any], most: int) -> None:
    assert msgspec.convert({"model": "m", **fields}, Completion).most == most
    assert chat(n=3, max_tokens=7).most == 21
