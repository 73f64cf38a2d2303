from __future__ import annotations

import json

import pytest
from sage_gateway.render import DONE, Renderer, usage

from sage_core import Token

LAST = Token(finish="stop", prompt_tokens=2, completion_tokens=1)


def events(data: bytes) -> list[dict[str, object]]:
    parts = data.split(b"\n\n")
    assert parts[-2:] == [DONE.rstrip(), b""]
    return [json.loads(part.removeprefix(b"data: ")) for part in parts[:-2]]


@pytest.mark.parametrize(("chat", "kind"), [(True, "chat.completion.chunk"), (False, "text_completion")])
def test_a_stream_is_one_answer_in_pieces(chat: bool, kind: str) -> None:
    renderer = Renderer("req-1", "m", chat=chat)
    pieces = events(renderer.begin() + renderer.piece("é") + renderer.end(LAST, with_usage=True))
    assert {piece["object"] for piece in pieces} == {kind}
    assert len({piece["id"] for piece in pieces}) == 1
    assert pieces[-1]["usage"] == usage(LAST)
    assert pieces[-1]["choices"] == []
    assert [choice["finish_reason"] for piece in pieces for choice in piece["choices"]][-1] == "stop"  # type: ignore[attr-defined]


def test_a_whole_answer() -> None:
    answer = json.loads(Renderer("req-1", "m", chat=True).whole("hi", LAST))
    assert answer["choices"][0]["message"] == {"role": "assistant", "content": "hi"}
    assert answer["usage"]["total_tokens"] == 3
