"""Events of a response: numbered without a gap, and together the whole."""

from __future__ import annotations

import json

import pytest
from sage_gateway.response_events import ResponseWriter


def test_events_are_numbered_and_add_up_to_the_response() -> None:
    writer = ResponseWriter("r1", {"model": "m"})
    data = writer.begin() + writer.piece("one ") + writer.piece("two") + writer.end("stop", 3, 2, 1)
    events = [json.loads(event.split(b"\ndata: ", 1)[1]) for event in data.split(b"\n\n") if event]
    assert [event["sequence_number"] for event in events] == list(range(len(events)))
    assert "".join(event["delta"] for event in events if event["type"].endswith("delta")) == "one two"
    last = events[-1]["response"]
    assert (events[-1]["type"], last["model"], last["id"]) == ("response.completed", "m", "resp_r1")
    assert last["output"][0]["content"][0]["text"] == "one two"
    assert (last["usage"]["total_tokens"], last["usage"]["input_tokens_details"]) == (5, {"cached_tokens": 1})


@pytest.mark.parametrize(("finish", "reason"), [("length", "max_output_tokens"), ("content_filter", "content_filter")])
def test_an_answer_that_was_cut_is_incomplete(finish: str, reason: str) -> None:
    found = ResponseWriter("r1", {}).whole(finish, 1, 1, 0)
    assert (found["status"], found["incomplete_details"]) == ("incomplete", {"reason": reason})


def test_a_text_and_several_calls_are_items_in_the_order_in_which_they_began() -> None:
    writer = ResponseWriter("r1", {})
    data = writer.begin() + writer.piece("let me see")
    # An engine may go back and forth between calls, and may leave their ids out.
    for number, id, name, arguments in ((0, "c0", "f", ""), (1, "", "g", "{"), (0, "", "", "{}"), (1, "", "", "}")):
        data += writer.call(number, id, name, arguments)
    data += writer.end("tool_calls", 3, 2, 0)
    events = [json.loads(event.split(b"\ndata: ", 1)[1]) for event in data.split(b"\n\n") if event]
    assert [event["sequence_number"] for event in events] == list(range(len(events)))
    assert [each["item"]["type"] for each in events if each["type"] == "response.output_item.added"] == [
        "message",
        "function_call",
        "function_call",
    ]
    deltas = [event for event in events if event["type"] == "response.function_call_arguments.delta"]
    assert [(each["output_index"], each["delta"]) for each in deltas] == [(2, "{"), (1, "{}"), (2, "}")]
    output = events[-1]["response"]["output"]
    assert [(item.get("name"), item.get("call_id"), item.get("arguments")) for item in output] == [
        (None, None, None),
        ("f", "c0", "{}"),
        ("g", "call_r1_1", "{}"),
    ]
    done = [event["item"] for event in events if event["type"] == "response.output_item.done"]
    assert done == output


def test_an_answer_without_a_word_is_an_empty_message() -> None:
    writer = ResponseWriter("r1", {})
    data = writer.begin() + writer.end("stop", 1, 0, 0)
    last = json.loads(data.split(b"\ndata: ")[-1])
    assert last["response"]["output"][0]["content"][0]["text"] == ""
    assert b"response.output_text.done" in data
