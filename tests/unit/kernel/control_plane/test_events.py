"""Inputs and actions: no text in them, pools by what a model is, and recordings that are read back as they were."""

from __future__ import annotations

import msgspec

from sage_core.common.records import Caller, Capacity, EngineInfo, ModelSpec, Request
from sage_core.kernel.control_plane.events import (
    Broke,
    Cancelled,
    Completed,
    EngineLost,
    EngineOpened,
    Instant,
    Started,
    Submitted,
    Tick,
    lane_of,
    outline,
)


def test_an_outline_holds_sizes_and_digests_and_no_text() -> None:
    secret = outline(Request(id="r", kind="embed", model="m", texts=("my secret", "my secret", "ä")), "lane")
    assert "secret" not in repr(secret)
    assert secret.sizes == (9, 9, 2)
    assert secret.keys[0] == secret.keys[1] != secret.keys[2]


def test_a_lane_is_the_model_and_not_its_name_unless_the_name_is_all_there_is() -> None:
    spec = ModelSpec(name="a", backend="onnx", source="f", options={"x": 1, "y": 2})
    assert lane_of(spec) == lane_of(ModelSpec(name="b", backend="onnx", source="f", options={"y": 2, "x": 1}))
    assert lane_of(spec) != lane_of(ModelSpec(name="a", backend="onnx", source="f", options={"x": 1}))
    assert lane_of(spec) != lane_of(ModelSpec(name="a", backend="onnx", source="g", options={"x": 1, "y": 2}))
    assert lane_of(spec).startswith("onnx/")
    assert lane_of(ModelSpec(name="a", backend="onnx")) != lane_of(ModelSpec(name="b", backend="onnx"))


def test_an_embed_request_that_is_passed_on_is_one_piece_of_work_and_keeps_its_name() -> None:
    whole = outline(Request(id="r", kind="embed", model="m", path="/v1/embeddings", body=b"{}"), "lane")
    assert (whole.kind, whole.asked, whole.sizes) == ("rerank", "embed", (2,))


def test_what_is_not_embedded_is_one_row_of_all_its_bytes() -> None:
    messages = ({"role": "system", "content": "be brief"}, {"role": "user", "content": "hä"}, {"role": "user"})
    chat = outline(Request(id="r", kind="generate", model="m", messages=messages, max_tokens=9), "lane")
    assert (chat.sizes, chat.keys, chat.max_tokens) == ((11,), (), 9)
    rank = outline(Request(id="r", kind="rerank", model="m", texts=("query", "one", "two")), "lane")
    assert (rank.sizes, rank.keys, rank.max_tokens) == ((11,), (), 0)


def test_half_a_surrogate_pair_can_be_measured() -> None:
    assert outline(Request(id="r", kind="embed", model="m", texts=("\ud800",)), "lane").sizes == (3,)


def test_a_question_about_a_model_has_no_rows() -> None:
    for kind in ("embed", "tokenize", "generate"):
        about = outline(Request(id="r", kind=kind, model="m", texts=("a",)), "lane", about=True)
        assert (about.sizes, about.keys) == ((), ())


def test_a_recorded_instant_is_read_back_as_it_was() -> None:
    shape = outline(Request(id="r", kind="embed", model="m", texts=("a", "b"), caller=Caller(remaining=5)), "lane")
    info = EngineInfo(id="e", model="m", backend="b", kinds=("embed",), capacity=Capacity(), identity="i")
    inputs = (
        Submitted(outline=shape),
        Started(ticket=1),
        Completed(ticket=1, seconds=0.5, tokens_in=3, tokens_out=4),
        Broke(ticket=2, seconds=0.25, reason="poison", fatal=True),
        Cancelled(request="r"),
        EngineOpened(engine="e", info=info),
        EngineLost(engine="e", reason="gone"),
        Tick(),
    )
    instant = Instant(now=7, inputs=inputs)
    assert msgspec.json.decode(msgspec.json.encode(instant), type=Instant) == instant
