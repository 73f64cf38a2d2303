"""``/v1/responses`` as the official client reads it, whatever its engine speaks."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from openai import BadRequestError, NotFoundError, OpenAI
from openai.types.responses import Response
from sage_gateway.testing import Running

MODELS = {"echo": {"backend": "fake"}, "plain": {"backend": "plain"}}


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
