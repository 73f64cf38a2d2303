"""Frames: every error of the tree crosses the socket as itself."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import numpy
import pytest

from sage_core.common import errors
from sage_core.common.errors import InvalidRequest, ModelError, RequestRejected, SageError, UnknownName, UsageError
from sage_core.common.records import Capacity, EngineInfo, Kind, Request
from sage_core.kernel.control_plane import frames
from sage_core.kernel.control_plane.frames import (
    Answer,
    Ask,
    Failed,
    Frame,
    answered,
    failure,
    raised,
    unframed,
)


def round_trip(frame: Frame) -> Frame | None:
    async def read() -> Frame | None:
        reader = asyncio.StreamReader()
        reader.feed_data(frames.pack(frame))
        reader.feed_eof()
        return await frames.read(reader)

    return asyncio.run(read())


@pytest.mark.parametrize(
    "error",
    [
        UnknownName("backend", "onx", ("onnx", "local"), "install it"),
        ModelError("m", "is missing", "get it"),
        InvalidRequest("m", "too long", "shorten it", "context_length_exceeded"),
        RequestRejected("overload", 1.5),
        errors.StaleAttempt("sqlite:///x", 1, 2),
        errors.InvalidWorkflow(["a:1:1: wrong"]),
    ],
    ids=lambda error: type(error).__name__,
)
def test_an_error_arrives_as_itself(error: SageError) -> None:
    frame = round_trip(failure("r", "m", error))
    assert isinstance(frame, Failed)
    assert frame.id == "r"
    rebuilt = raised(frame)
    assert type(rebuilt) is type(error)
    assert rebuilt.args == error.args
    assert str(rebuilt) == str(error)


def test_a_stranger_becomes_an_error_of_its_model() -> None:
    assert str(raised(failure("r", "m", ValueError("odd")))) == "model 'm': ValueError: odd"


class OddError(SageError):
    """A plugin's own, with fields of its own."""

    def __str__(self) -> str:
        return f"odd: {self.args[0].name}"


def test_a_plugins_own_error_keeps_its_text() -> None:
    frame = round_trip(failure("r", "m", OddError(Path("/where/model.bin"))))
    assert isinstance(frame, Failed)
    rebuilt = raised(frame)
    assert (type(rebuilt), str(rebuilt)) == (SageError, "odd: model.bin")


def test_fields_that_have_no_form_in_a_frame_cross_as_text() -> None:
    frame = round_trip(failure("r", "m", ModelError("m", Path("/where"), [{1}])))  # type: ignore[arg-type]
    assert isinstance(frame, Failed)
    assert frame.fields == ["m", "/where", [[1]]]


def test_an_error_that_this_side_does_not_know_keeps_its_name() -> None:
    for name in ("FromTheFuture", "SageErrors", "Sequence", "StaleAttempt"):
        assert name in str(raised(Failed(id="r", error=name, fields=["a", 1])))


def test_requests_cross_unchanged() -> None:
    ask = Ask(request=Request(id="r", kind="embed", model="m", texts=("ä", "", "日本")), about=True)
    assert round_trip(ask) == ask


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        ("embed", numpy.array([[0.1, -2.0], [3.5, 1e-30]], numpy.float32)),
        ("embed", numpy.zeros((2, 0), numpy.float32)),
        ("rerank", [0.1, -5.0]),
        ("tokenize", [[(0, 3), (3, 5)], []]),
    ],
)
def test_answers_cross_unchanged(kind: Kind, value: Any) -> None:
    ask = Ask(request=Request(id="r", kind=kind, model="m", texts=("a", "b")))
    frame = round_trip(answered("r", value))
    assert isinstance(frame, Answer)
    assert numpy.array_equal(unframed(ask, frame), value) if kind == "embed" else unframed(ask, frame) == value


def test_what_serves_a_model_crosses_unchanged() -> None:
    info = EngineInfo(id="e", model="m", backend="b", kinds=("embed",), capacity=Capacity(), identity="i")
    frame = round_trip(answered("r", info))
    assert isinstance(frame, Answer)
    assert unframed(Ask(request=Request(id="r", kind="tokenize", model="m"), about=True), frame) == info


def test_the_end_of_a_stream_is_an_answer_without_a_value() -> None:
    assert round_trip(Answer(id="r")) == Answer(id="r")


def test_text_that_is_no_unicode_is_refused_before_it_is_sent() -> None:
    with pytest.raises(UsageError, match="a text cannot be sent to a model"):
        frames.pack(Ask(request=Request(id="r", kind="embed", model="m", texts=("\ud800",))))


def test_half_a_frame_and_a_foreign_length_end_the_connection() -> None:
    async def read(data: bytes) -> Frame | None:
        reader = asyncio.StreamReader()
        reader.feed_data(data)
        reader.feed_eof()
        return await frames.read(reader)

    whole = frames.pack(answered("r", [1.0, 2.0]))
    for data in (b"", whole[:3], whole[:-1], b"\xff\xff\xff\xff" + whole, b"\x03\x00\x00\x00\xc1\xc1\xc1"):
        assert asyncio.run(read(data)) is None
