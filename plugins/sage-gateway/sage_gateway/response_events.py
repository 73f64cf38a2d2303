"""Answers of ``/v1/responses``: the object, and the events that build it up."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

import msgspec

_ENCODE = msgspec.json.Encoder().encode


class _Text:
    """The message of a response."""

    def __init__(self, id: str) -> None:
        self.id = f"msg_{id}"
        self.said: list[str] = []

    def item(self, status: str, *, empty: bool = False) -> dict[str, Any]:
        content = [] if empty else [_part("".join(self.said))]
        return {"id": self.id, "type": "message", "status": status, "role": "assistant", "content": content}


class _Call:
    """A function that the client is to call."""

    def __init__(self, id: str, number: int) -> None:
        self.id = f"fc_{id}_{number}"
        self.call_id = f"call_{id}_{number}"
        self.name = ""
        self.said: list[str] = []

    def item(self, status: str, *, empty: bool = False) -> dict[str, Any]:
        arguments = "" if empty else "".join(self.said)
        named = {"call_id": self.call_id, "name": self.name, "arguments": arguments}
        return {"id": self.id, "type": "function_call", "status": status, **named}


class ResponseWriter:
    """Writes one response, whole or as events: a message, functions to be called, or both.

    Args:
        id: of the request.
        asked: what the client said that the response repeats.
    """

    def __init__(self, id: str, asked: Mapping[str, Any]) -> None:
        self._asked = asked
        self._id = id
        self._created = int(time.time())
        self._number = -1
        #: In the order in which they began, which is that of the output.
        self._items: list[_Text | _Call] = []
        self._text: _Text | None = None
        #: By the number that the engine gave each.
        self._calls: dict[int, _Call] = {}

    def begin(self) -> bytes:
        """What comes before the first piece."""
        response = self._response("in_progress", [], None)
        return self._event("response.created", response=response) + self._event(
            "response.in_progress", response=response
        )

    def piece(self, text: str) -> bytes:
        """A piece of the text."""
        begun = b""
        if self._text is None:
            self._text = _Text(self._id)
            begun = self._added(self._text)
            begun += self._event("response.content_part.added", **self._place(self._text), part=_part(""))
        self._text.said.append(text)
        return begun + self._event("response.output_text.delta", **self._place(self._text), delta=text, logprobs=[])

    def call(self, number: int, call_id: str, name: str, arguments: str) -> bytes:
        """A piece of a call, which has an id and a name when it begins."""
        begun = b""
        if number not in self._calls:
            made = self._calls[number] = _Call(self._id, len(self._calls))
            made.call_id, made.name = call_id or made.call_id, name
            begun = self._added(made)
        call = self._calls[number]
        if not arguments:
            return begun
        call.said.append(arguments)
        place = self._place(call)
        return begun + self._event("response.function_call_arguments.delta", **place, delta=arguments)

    def end(self, finish: str, read: int, written: int, cached: int) -> bytes:
        """What follows the last piece."""
        # An answer without a word is one.
        begun = b"" if self._items else self.piece("")
        whole = self.whole(finish, read, written, cached)
        done = [self._done(item, whole["status"]) for item in self._items]
        return begun + b"".join((*done, self._event(f"response.{whole['status']}", response=whole)))

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
        items = self._items or [_Text(self._id)]
        found = self._response(status, [item.item(status) for item in items], usage)
        if status == "incomplete":
            reason = "max_output_tokens" if finish == "length" else finish
            found["incomplete_details"] = {"reason": reason}
        return found

    def _added(self, item: _Text | _Call) -> bytes:
        self._items.append(item)
        index = len(self._items) - 1
        return self._event("response.output_item.added", output_index=index, item=item.item("in_progress", empty=True))

    def _done(self, item: _Text | _Call, status: str) -> bytes:
        place, text = self._place(item), "".join(item.said)
        if isinstance(item, _Call):
            ended = self._event("response.function_call_arguments.done", **place, name=item.name, arguments=text)
        else:
            ended = self._event("response.output_text.done", **place, text=text, logprobs=[])
            ended += self._event("response.content_part.done", **place, part=_part(text))
        index = place["output_index"]
        return ended + self._event("response.output_item.done", output_index=index, item=item.item(status))

    def _place(self, item: _Text | _Call) -> dict[str, Any]:
        place: dict[str, Any] = {"item_id": item.id, "output_index": self._items.index(item)}
        return {**place, "content_index": 0} if isinstance(item, _Text) else place

    def _response(self, status: str, output: list[dict[str, Any]], usage: dict[str, Any] | None) -> dict[str, Any]:
        return {
            "id": f"resp_{self._id}",
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
