"""Streams of events: their beginning, their end, what they counted, and their texts."""

from __future__ import annotations

import msgspec
import pytest
from sage_openai.events import PIECE, TAIL, Events, Tail, begins, usage_of

COUNTED = b'data: {"choices":[],"usage":{"prompt_tokens":3,"completion_tokens":5}}\n\n'
DONE = b"data: [DONE]\n\n"


def event(text: str) -> bytes:
    return b'data: {"choices":[{"delta":{"content":"%b"}}],"usage":null}\n\n' % text.encode()


def tail(*pieces: bytes) -> Tail:
    found = Tail()
    for piece in pieces:
        found.add(piece)
    return found


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"data: {}", True),
        (b": a comment", True),
        (b"\r\n\xef\xbb\xbfevent: a", True),
        (b"da", True),
        (b"", True),
        (b"<html>", False),
        (b'{"error":1}', False),
    ],
)
def test_a_stream_of_events_is_known_by_its_beginning(data: bytes, expected: bool) -> None:
    assert begins(data) is expected


def test_a_stream_has_ended_with_its_mark_and_not_before() -> None:
    assert not tail(event("a"), COUNTED).ended
    assert not tail(event("a"), b"data: [DONE]").ended
    assert tail(event("a"), COUNTED, DONE).ended
    assert tail(event("a"), b"data: [DO", b"NE]\n\n").ended
    assert tail(b'event: response.completed\ndata: {"type":"response.completed"}\n\n').ended


@pytest.mark.parametrize("after", [(), (DONE,), (b": ping\n\n", DONE), (DONE[:6], DONE[6:])])
def test_totals_are_found_among_the_last_events(after: tuple[bytes, ...]) -> None:
    usage = tail(*(event(str(n)) for n in range(50)), COUNTED, *after).usage()
    assert (usage.read, usage.written) == (3, 5)


def test_a_long_last_event_is_kept_whole() -> None:
    long = b'data: {"response":{"output":"%b","usage":{"input_tokens":7,"output_tokens":9}}}\n\n' % (b"x" * 2 * TAIL)
    usage = tail(*(event(str(n)) for n in range(10)), long).usage()
    assert (usage.read, usage.written) == (7, 9)


def test_what_is_kept_of_a_long_stream_stays_small() -> None:
    found = tail(*(event(str(n)) for n in range(1_000)))
    assert len(found.data) < 400
    assert len(tail(*[b"data: x\r\n\r\n"] * 5_000).data) == TAIL


def test_totals_are_nought_where_nobody_counted() -> None:
    assert tail(event("a"), DONE).usage().written == 0
    assert tail(b'data: {"usage": {"prompt_tok\n\n').usage().read == 0


def test_totals_of_both_protocols_are_understood() -> None:
    counted = usage_of(b'{"usage":{"prompt_tokens":3,"prompt_tokens_details":{"cached_tokens":2}}}')
    assert (counted.read, counted.written, counted.cached) == (3, 0, 2)
    assert usage_of(b'{"response":{"usage":{"output_tokens":4}}}').written == 4
    assert usage_of(b"{}").read == 0
    with pytest.raises(msgspec.MsgspecError):
        usage_of(b"<html>")


def test_events_are_told_apart_wherever_their_bytes_are_cut() -> None:
    stream = b"data: one\n\n: comment\n\ndata: two\ndata: lines\r\n\r\nid: 3\ndata:three\n\nda"
    for cut in range(len(stream)):
        events = Events()
        assert [*events.feed(stream[:cut]), *events.feed(stream[cut:])] == [b"one", b"two\nlines", b"three"], cut
        assert events.half


def test_a_piece_has_the_text_of_either_protocol_and_its_reason_to_end() -> None:
    assert PIECE.decode(b'{"choices":[{"delta":{"content":"a"}},{"text":"b"}]}').text == "ab"
    assert PIECE.decode(b'{"choices":[{"delta":{},"finish_reason":"stop"}]}').finish == "stop"
    assert PIECE.decode(b'{"choices":[{"delta":null}]}').text == ""
