"""Answers of engines that only write tokens, as OpenAI's JSON and events."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

import msgspec

from sage_core import Token

_ENCODE = msgspec.json.Encoder().encode
DONE = b"data: [DONE]\n\n"


class Renderer:
    """Writes one answer, whole or in pieces.

    Args:
        id: of the request.
        model: the name the client used.
        chat: as a chat, or else as a completion.
    """

    def __init__(self, id: str, model: str, *, chat: bool) -> None:
        self._chat = chat
        kind = "chat.completion" if chat else "text_completion"
        self._head = {
            "id": f"{'chatcmpl' if chat else 'cmpl'}-{id}",
            "object": kind,
            "created": int(time.time()),
            "model": model,
        }
        self._chunk = {**self._head, "object": "chat.completion.chunk"} if chat else self._head

    def whole(self, text: str, last: Token) -> bytes:
        """The answer as one JSON document."""
        said: dict[str, Any] = {"message": {"role": "assistant", "content": text}} if self._chat else {"text": text}
        choice = {"index": 0, **said, "logprobs": None, "finish_reason": last.finish}
        return _ENCODE({**self._head, "choices": [choice], "usage": usage(last)})

    def begin(self) -> bytes:
        """What comes before the first token."""
        return self._event({"delta": {"role": "assistant", "content": ""}}) if self._chat else b""

    def piece(self, text: str) -> bytes:
        """One token."""
        return self._event({"delta": {"content": text}} if self._chat else {"text": text})

    def end(self, last: Token, *, with_usage: bool) -> bytes:
        """What follows the last token."""
        said: dict[str, Any] = {"delta": {}} if self._chat else {"text": ""}
        data = self._event(said, last.finish)
        if with_usage:
            data += b"data: " + _ENCODE({**self._chunk, "choices": [], "usage": usage(last)}) + b"\n\n"
        return data + DONE

    def _event(self, said: Mapping[str, Any], finish: str | None = None) -> bytes:
        choice = {"index": 0, **said, "logprobs": None, "finish_reason": finish}
        return b"data: " + _ENCODE({**self._chunk, "choices": [choice]}) + b"\n\n"


def usage(last: Token) -> dict[str, int]:
    """Totals, as OpenAI names them."""
    read, written = last.prompt_tokens, last.completion_tokens
    return {"prompt_tokens": read, "completion_tokens": written, "total_tokens": read + written}
