"""``/v1/responses`` as the official client reads it, whatever its engine speaks."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from openai import BadRequestError, NotFoundError, OpenAI
from openai.types.responses import Response, ResponseFunctionToolCall
from sage_gateway.testing import Running

MODELS = {"echo": {"backend": "fake"}, "plain": {"backend": "plain"}}

SCHEMA = {"type": "object", "properties": {"text": {"type": "string"}}, "required": ["text"]}
TOOLS: Any = [{"type": "function", "name": "look", "description": "Look it up.", "parameters": SCHEMA}]


@pytest.fixture
def tooled(serve: Callable[..., Running]) -> Running:
    return serve(MODELS)


@pytest.fixture
def client(serve: Callable[..., Running]) -> Any:
    running = serve(MODELS)
    with OpenAI(base_url=f"{running.url}/v1", api_key="any", max_retries=0, timeout=20) as client:
        yield client
    assert running.settled()


@pytest.mark.parametrize("model", MODELS)
def test_a_response_whole(client: OpenAI, model: str) -> None:
    found = client.responses.create(model=model, input="one two three", metadata={"for": "test"}, max_output_tokens=20)
    assert found.output_text == "one two three"
    assert (found.status, found.metadata) == ("completed", {"for": "test"})
    assert found.usage is not None
    assert (found.usage.output_tokens, found.usage.total_tokens) == (3, found.usage.input_tokens + 3)
    short = client.responses.create(model=model, input="one two three", max_output_tokens=2)
    assert short.status == "incomplete"
    assert short.incomplete_details is not None
    assert short.incomplete_details.reason == "max_output_tokens"
    assert short.output_text == "one two"


@pytest.mark.parametrize("model", MODELS)
def test_a_response_in_events(client: OpenAI, model: str) -> None:
    items: Any = [
        {"role": "user", "content": [{"type": "input_text", "text": "one two"}]},
        {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "three"}]},
    ]
    with client.responses.stream(model=model, input=items, instructions="zero") as stream:
        events = list(stream)
        whole = stream.get_final_response()
    kinds = [event.type for event in events]
    assert kinds[:4] == [
        "response.created",
        "response.in_progress",
        "response.output_item.added",
        "response.content_part.added",
    ]
    assert kinds[-4:] == [
        "response.output_text.done",
        "response.content_part.done",
        "response.output_item.done",
        "response.completed",
    ]
    assert set(kinds[4:-4]) == {"response.output_text.delta"}
    assert [event.sequence_number for event in events] == list(range(len(events)))
    assert whole.output_text == "zero one two three"
    assert whole.usage is not None
    assert whole.usage.output_tokens == 4


def test_a_schema_reaches_the_engine(client: OpenAI) -> None:
    schema = {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]}
    format: Any = {"format": {"type": "json_schema", "name": "it", "schema": schema}}
    found: Response = client.responses.create(model="echo", input="x", text=format)
    assert json.loads(found.model_dump_json())["text"]["format"]["type"] == "json_schema"


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"previous_response_id": "resp_1"}, "previous_response_id"),
        ({"store": True}, "store"),
        ({"background": True}, "background"),
        ({"tools": [{"type": "web_search"}]}, "tools"),
        ({"tools": [{"type": "function", "name": ""}]}, "tools"),
        ({"tool_choice": "required"}, "tool_choice"),
        ({"tool_choice": "sometimes"}, "tool_choice"),
        ({"tool_choice": {"type": "web_search_preview"}}, "tool_choice"),
        ({"tools": TOOLS, "tool_choice": {"type": "function", "name": "other"}}, "tool_choice"),
        ({"tools": TOOLS, "tool_choice": {"type": "function"}}, "tool_choice"),
        ({"input": [{"type": "function_call", "name": "f", "arguments": "{}"}]}, "input"),
        ({"input": [{"type": "function_call", "call_id": "c", "arguments": "{}"}]}, "input"),
        ({"input": [{"type": "function_call_output", "output": "x"}]}, "input"),
        ({"input": [{"type": "item_reference", "id": "x"}]}, "input"),
        ({"input": [{"role": "user", "content": [{"type": "input_image", "image_url": "http://x/y"}]}]}, "input"),
        ({"input": [{"role": "boss", "content": "x"}]}, "input"),
        ({"extra_body": {"colour": 1}}, "colour"),
        ({"model": "workflow/ask"}, "model"),
        ({"text": {"format": {"type": "xml"}}}, "text"),
    ],
)
def test_what_is_not_served_is_refused_by_name(client: OpenAI, fields: dict[str, Any], param: str) -> None:
    asked: dict[str, Any] = {"model": "echo", "input": "x", **fields}
    with pytest.raises(BadRequestError) as refused:
        client.responses.create(**asked)
    assert refused.value.param == param


def test_an_unknown_model_is_named(client: OpenAI) -> None:
    with pytest.raises(NotFoundError, match="Did you mean 'echo'"):
        client.responses.create(model="ecko", input="x")


def test_a_conversation_that_is_not_kept_says_what_to_send_instead(client: OpenAI) -> None:
    with pytest.raises(BadRequestError, match="send the earlier items, the output of earlier responses among them"):
        client.responses.create(model="echo", input="x", previous_response_id="resp_1")


def test_a_function_is_called_and_what_it_gave_goes_back(tooled: Running) -> None:
    with OpenAI(base_url=f"{tooled.url}/v1", api_key="any", max_retries=0, timeout=20) as client:
        items: list[Any] = [{"role": "user", "content": "one two"}]
        first = client.responses.create(
            model="echo", input=items, tools=TOOLS, tool_choice={"type": "function", "name": "look"}
        )
        (call,) = first.output
        assert isinstance(call, ResponseFunctionToolCall)
        assert (first.status, call.name, json.loads(call.arguments)) == ("completed", "look", {"text": "one two"})
        assert [tool.name for tool in first.tools if tool.type == "function"] == ["look"]
        # As the client's own documentation does it: the output, unchanged, and the result behind it.
        items += [*first.output, {"type": "function_call_output", "call_id": call.call_id, "output": "found it"}]
        second = client.responses.create(model="echo", input=items, tools=TOOLS, tool_choice="none")
        assert second.usage is not None
    bodies = [json.loads(body) for body in tooled.engine("echo").bodies]
    assert bodies[0]["tools"] == [
        {"type": "function", "function": {"name": "look", "description": "Look it up.", "parameters": SCHEMA}}
    ]
    assert bodies[0]["tool_choice"] == {"type": "function", "function": {"name": "look"}}
    function = {"name": "look", "arguments": call.arguments}
    assert bodies[1]["messages"] == [
        {"role": "user", "content": "one two"},
        {
            "role": "assistant",
            "content": None,
            "tool_calls": [{"id": call.call_id, "type": "function", "function": function}],
        },
        {"role": "tool", "tool_call_id": call.call_id, "content": "found it"},
    ]
    assert tooled.settled()


def test_a_call_comes_in_events(tooled: Running) -> None:
    with (
        OpenAI(base_url=f"{tooled.url}/v1", api_key="any", max_retries=0, timeout=20) as client,
        client.responses.stream(model="echo", input="one two", tools=TOOLS, parallel_tool_calls=False) as stream,
    ):
        events = list(stream)
        whole = stream.get_final_response()
    kinds = [event.type for event in events]
    assert kinds[2] == "response.output_item.added"
    assert kinds[-3:] == ["response.function_call_arguments.done", "response.output_item.done", "response.completed"]
    assert set(kinds[3:-3]) == {"response.function_call_arguments.delta"}
    assert len(kinds[3:-3]) > 1
    assert [event.sequence_number for event in events] == list(range(len(events)))
    (call,) = whole.output
    assert isinstance(call, ResponseFunctionToolCall)
    assert json.loads(call.arguments) == {"text": "one two"}
    assert not whole.parallel_tool_calls


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"tools": TOOLS}, "tools"),
        ({"input": [{"type": "function_call_output", "call_id": "c", "output": "x"}]}, "input"),
    ],
)
def test_an_engine_that_only_writes_refuses_functions(client: OpenAI, fields: dict[str, Any], param: str) -> None:
    asked: dict[str, Any] = {"model": "plain", "input": "x", **fields}
    with pytest.raises(BadRequestError, match=f"cannot serve '{param}'"):
        client.responses.create(**asked)
    assert client.responses.create(model="plain", input="x", tools=TOOLS, tool_choice="none").output_text == "x"
