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
