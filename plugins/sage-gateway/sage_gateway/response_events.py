"""Answers of ``/v1/responses``: the object, and the events that build it up."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

import msgspec

_ENCODE = msgspec.json.Encoder().encode


class ResponseWriter:
    """Writes one response of one message, whole or as events.

    Args:
        id: of the request.
        asked: what the client said that the response repeats.
    """

    def __init__(self, id: str, asked: Mapping[str, Any]) -> None:
        self._asked = asked
        self._id, self._message = f"resp_{id}", f"msg_{id}"
        self._created = int(time.time())
        self._number = -1
        self._texts: list[str] = []

    def begin(self) -> bytes:
        """What comes before the first piece."""
        response = self._response("in_progress", [], None)
        part = {"item_id": self._message, "output_index": 0, "content_index": 0, "part": _part("")}
        return b"".join(
            (
                self._event("response.created", response=response),
                self._event("response.in_progress", response=response),
                self._event("response.output_item.added", output_index=0, item=self._item("in_progress", [])),
                self._event("response.content_part.added", **part),
            )
        )

    def piece(self, text: str) -> bytes:
        """A piece of the text."""
        self._texts.append(text)
        return self._event("response.output_text.delta", **self._place, delta=text, logprobs=[])

    def end(self, finish: str, read: int, written: int, cached: int) -> bytes:
        """What follows the last piece."""
        text = "".join(self._texts)
        whole = self.whole(finish, read, written, cached)
        return b"".join(
            (
                self._event("response.output_text.done", **self._place, text=text, logprobs=[]),
                self._event("response.content_part.done", **self._place, part=_part(text)),
                self._event("response.output_item.done", output_index=0, item=whole["output"][0]),
                self._event(f"response.{whole['status']}", response=whole),
            )
        )

    def add(self, text: str) -> None:
        """Keep a piece of a text that is sent whole."""
        self._texts.append(text)

    def whole(self, finish: str, read: int, written: int, cached: int) -> dict[str, Any]:
        """The response object."""
        status = "incomplete" if finish in ("length", "content_filter") else "completed"
        usage = {
            "input_tokens": read,
            "input_tokens_details": {"cached_tokens": cached},
            "output_tokens": written,
            "output_tokens_details": {"reasoning_tokens": 0},
            "total_tokens": read + written,
        }
        found = self._response(status, [self._item(status, [_part("".join(self._texts))])], usage)
        if status == "incomplete":
            reason = "max_output_tokens" if finish == "length" else finish
            found["incomplete_details"] = {"reason": reason}
        return found

    @property
    def _place(self) -> dict[str, Any]:
        return {"item_id": self._message, "output_index": 0, "content_index": 0}

    def _item(self, status: str, content: list[dict[str, Any]]) -> dict[str, Any]:
        return {"id": self._message, "type": "message", "status": status, "role": "assistant", "content": content}

    def _response(self, status: str, output: list[dict[str, Any]], usage: dict[str, Any] | None) -> dict[str, Any]:
        return {
            "id": self._id,
            "object": "response",
            "created_at": self._created,
            "status": status,
            "error": None,
            "incomplete_details": None,
            "output": output,
            "usage": usage,
            **self._asked,
        }

    def _event(self, kind: str, **fields: Any) -> bytes:
        self._number += 1
        data = _ENCODE({"type": kind, "sequence_number": self._number, **fields})
        return b"event: " + kind.encode() + b"\ndata: " + data + b"\n\n"


def _part(text: str) -> dict[str, Any]:
    return {"type": "output_text", "text": text, "annotations": [], "logprobs": []}
