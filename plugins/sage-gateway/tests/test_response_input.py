"""The chat that a response's input is."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from sage_gateway.bodies import fields_of
from sage_gateway.errors import ApiError
from sage_gateway.response_input import Wanted, refuse_others


def wanted(**fields: Any) -> Wanted:
    return msgspec.convert({"model": "m", "input": "x", **fields}, Wanted)


def test_a_text_and_its_instructions_are_two_messages() -> None:
    assert wanted(instructions="be brief").messages == [
        {"role": "system", "content": "be brief"},
        {"role": "user", "content": "x"},
    ]


def test_what_an_assistant_said_and_asked_for_is_one_message() -> None:
    calls = [{"type": "function_call", "call_id": id, "name": "f", "arguments": "{}"} for id in "ab"]
    said = {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "let me"}]}
    outputs = [{"type": "function_call_output", "call_id": id, "output": f"{id}!"} for id in "ab"]
    messages = wanted(input=[said, *calls, *outputs, calls[0]]).messages
    assert [message["role"] for message in messages] == ["assistant", "tool", "tool", "assistant"]
    assert (messages[0]["content"], [call["id"] for call in messages[0]["tool_calls"]]) == ("let me", ["a", "b"])
    assert [message["content"] for message in messages[1:3]] == ["a!", "b!"]
    assert [call["id"] for call in messages[3]["tool_calls"]] == ["a"]


def test_settings_are_those_of_a_chat() -> None:
    format = {"format": {"type": "json_schema", "name": "it", "schema": {"type": "object"}, "strict": True}}
    asked = wanted(max_output_tokens=5, top_p=0.5, text=format, tools=[{"type": "function", "name": "f"}])
    body = json.loads(asked.chat_body(asked.messages))
    assert body == {
        "model": "m",
        "messages": [{"role": "user", "content": "x"}],
        "stream": True,
        "stream_options": {"include_usage": True},
        "max_tokens": 5,
        "top_p": 0.5,
        "response_format": {
            "type": "json_schema",
            "json_schema": {"name": "it", "schema": {"type": "object"}, "strict": True},
        },
        "tools": [{"type": "function", "function": {"name": "f"}}],
    }
    assert asked.schema == {"type": "object"}


@pytest.mark.parametrize("name", ["store", "previous_response_id", "conversation"])
def test_a_field_that_needs_a_memory_says_what_to_do_without_one(name: str) -> None:
    with pytest.raises(ApiError, match="send the earlier items") as refused:
        refuse_others(fields_of(json.dumps({name: True}).encode()))
    assert refused.value.param == name
    refuse_others(fields_of(json.dumps({name: None}).encode()))
