from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sage_gateway.events import EventFilter

PIECE = b'data: {"choices":[{"delta":{"content":"\\"choices\\":[] \\"usage\\""}}],"usage":null}\n\n'
TOTALS = b'data: {"choices": [],"usage":{"total_tokens":3}}\n\n'
DONE = b"data: [DONE]\n\n"


def test_whole_events_pass_as_they_are() -> None:
    through = EventFilter(drop_usage=False)
    data = PIECE + TOTALS + DONE
    assert through.feed(data) is data
    assert not through.half


def test_totals_that_were_not_asked_for_are_taken_out() -> None:
    through = EventFilter(drop_usage=True)
    assert through.feed(PIECE) == PIECE
    assert through.feed(TOTALS + DONE) == DONE
    assert through.feed(PIECE + TOTALS) == PIECE


@pytest.mark.parametrize("end", [b"\n\n", b"\r\n\r\n", b"\r\r"])
def test_every_way_to_end_an_event(end: bytes) -> None:
    through = EventFilter(drop_usage=True)
    data = b"".join(event.replace(b"\n\n", end) for event in (PIECE, TOTALS, DONE))
    assert through.feed(data) == data.replace(TOTALS.replace(b"\n\n", end), b"")


@given(st.lists(st.integers(1, len(PIECE + TOTALS + DONE)), max_size=8), st.booleans())
def test_it_does_not_matter_where_the_stream_is_cut(cuts: list[int], drop: bool) -> None:
    data = PIECE + TOTALS + DONE
    through = EventFilter(drop_usage=drop)
    at, out = 0, b""
    for cut in [*sorted(cuts), len(data)]:
        out += through.feed(data[at:cut])
        assert not out or out.endswith(b"\n\n")
        at = max(at, cut)
    assert out == (PIECE + DONE if drop else data)
    assert not through.half


def test_half_an_event_is_held() -> None:
    through = EventFilter(drop_usage=False)
    assert through.feed(PIECE + DONE[:7]) == PIECE
    assert through.half
