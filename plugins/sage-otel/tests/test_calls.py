"""A line of the decision log as a model call."""

from __future__ import annotations

from typing import Any

import pytest
from sage_otel.calls import Call, call_of

from sage_core import Request

LINE: dict[str, object] = {
    "request": "r",
    "kind": "generate",
    "model": "m",
    "lane": "fake/1",
    "tenant": "t",
    "service_class": "standard",
    "run": "",
    "step": "",
    "engine": "m/0",
    "policy": "fifo",
    "outcome": "done",
    "reason": "",
    "total": 3_000_000_000,
    "wait": 1_000_000_000,
    "ttft": 0.5,
    "counted_in": 7,
    "counted_out": 4,
    "cached": 0,
    "attempts": 1,
    "candidates": (),
}


def made(request: dict[str, Any] | None = None, **changed: object) -> Call:
    line = {**LINE, **changed}
    found = call_of(Request(**{"id": "r", "kind": line["kind"], "model": "m", **(request or {})}), line)
    assert found is not None
    return found


@pytest.mark.parametrize(
    ("kind", "request_fields", "operation"),
    [
        ("generate", {"messages": ({"role": "user", "content": "x"},)}, "chat"),
        ("generate", {"path": "/v1/chat/completions", "body": b"{}"}, "chat"),
        ("generate", {"path": "/v1/completions", "body": b"{}"}, "text_completion"),
        ("generate", {"prompt": "x"}, "text_completion"),
        ("embed", {"texts": ("x",)}, "embeddings"),
        ("rerank", {"texts": ("x",)}, "rerank"),
    ],
)
def test_what_is_asked_for_has_the_conventions_name(kind: str, request_fields: dict[str, Any], operation: str) -> None:
    assert made(request_fields, kind=kind).operation == operation


def test_looking_up_tokens_is_no_call_of_a_model() -> None:
    assert call_of(Request(id="r", kind="tokenize", model="m"), {**LINE, "kind": "tokenize"}) is None


def test_times_are_seconds_from_arrival() -> None:
    call = made()
    assert (call.total, call.wait, call.first, call.attempts) == (3.0, 1.0, 0.5, 1)
    # One and a half seconds of writing, with three gaps.
    assert call.between == 0.5
    assert made(counted_out=1).between == 0.0
    assert made(ttft=0.0).between == 0.0


def test_an_end_that_is_no_good_one_is_an_error_of_its_kind() -> None:
    assert "error.type" not in made().attributes
    assert made(outcome="shed").attributes["error.type"] == "shed"
