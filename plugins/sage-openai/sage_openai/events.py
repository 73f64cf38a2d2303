"""Server-sent events: what can be known of a stream without parsing it, and parsing for those who need its text."""

from __future__ import annotations

from typing import Any

import msgspec

#: Events at the end of a stream among which its totals are: they, a mark of the end, and one that may have begun.
LAST = 4
#: Bytes kept of a stream whose events cannot be told apart.
TAIL = 16_384
DONE = b"[DONE]"
#: How the last event of the other protocols of OpenAI's is called.
_ENDS = (b"response.completed", b"response.incomplete", b"response.failed", b'"error"')
_BEGINS = (b"data:", b"event:", b"id:", b"retry:", b":")


class _PromptDetails(msgspec.Struct):
    cached_tokens: int | None = 0


class Usage(msgspec.Struct):
    """What a server counted."""

    prompt_tokens: int | None = 0
    completion_tokens: int | None = 0
    #: The names of /v1/responses.
    input_tokens: int | None = 0
    output_tokens: int | None = 0
    prompt_tokens_details: _PromptDetails | None = None

    @property
    def read(self) -> int:
        """Tokens of the prompt."""
        return self.prompt_tokens or self.input_tokens or 0

    @property
    def written(self) -> int:
        """Tokens of the answer."""
        return self.completion_tokens or self.output_tokens or 0

    @property
    def cached(self) -> int:
        """Tokens of the prompt that the server had computed before."""
        return (self.prompt_tokens_details.cached_tokens or 0) if self.prompt_tokens_details else 0


class _Inner(msgspec.Struct):
    usage: Usage | None = None


class _Counted(msgspec.Struct):
    usage: Usage | None = None
    response: _Inner | None = None


_COUNTED = msgspec.json.Decoder(_Counted)


def usage_of(body: bytes) -> Usage:
    """The totals of an answer; raises `msgspec.MsgspecError` for one that is no JSON object."""
    counted = _COUNTED.decode(body)
    return counted.usage or (counted.response.usage if counted.response else None) or Usage()


def begins(data: bytes) -> bool:
    """Whether this can be the beginning of a stream of events."""
    data = data.lstrip(b"\r\n\xef\xbb\xbf")
    return data.startswith(_BEGINS) or any(begin.startswith(data) for begin in _BEGINS)


class Tail:
    """The end of a stream: whether it is whole, and what it counted."""

    __slots__ = ("data",)

    def __init__(self) -> None:
        self.data = b""

    def add(self, piece: bytes) -> None:
        """The stream goes on: only its last events are kept, as many streams are open at a time."""
        data = self.data + piece
        at = len(data)
        for _ in range(LAST):
            at = data.rfind(b"\n\n", 0, at)
            if at < 0:
                self.data = data[-TAIL:]
                return
        self.data = data[at + 1 :]

    @property
    def ended(self) -> bool:
        """Whether the last event is there, and is one that ends a stream."""
        text = self.data.rstrip(b"\r\n")
        if len(text) == len(self.data):
            return False
        last = text[text.rfind(b"\n\n") + 1 :]
        return last.endswith(DONE) or any(end in last for end in _ENDS)

    def usage(self) -> Usage:
        """The last totals in it; zeros where there are none."""
        at = len(self.data)
        while (at := self.data.rfind(b'"usage"', 0, at)) >= 0:
            start = self.data.rfind(b"\ndata:", 0, at) + 1
            event = self.data[start:].split(b"\n", 1)[0]
            try:
                found = usage_of(event.removeprefix(b"data:").strip())
            except msgspec.MsgspecError:
                return Usage()
            if found.read or found.written:
                return found
            at = start
        return Usage()


class Events:
    """Turns bytes into events: the text after ``data:`` of each, joined where there are several lines."""

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, data: bytes) -> list[bytes]:
        """The events that are whole now."""
        text = (self._rest + data).replace(b"\r\n", b"\n")
        *events, self._rest = text.split(b"\n\n")
        found = (b"\n".join(_data(event)) for event in events)
        return [event for event in found if event]

    @property
    def half(self) -> bool:
        """Whether something that is no whole event is left."""
        return bool(self._rest.strip())


def _data(event: bytes) -> list[bytes]:
    lines = event.split(b"\n")
    return [line[5:].removeprefix(b" ") for line in lines if line.startswith(b"data:")]


class _Delta(msgspec.Struct):
    content: str | None = None


class _Choice(msgspec.Struct):
    delta: _Delta | None = None
    text: str | None = None
    finish_reason: str | None = None


class Piece(msgspec.Struct):
    """One event of a stream of text."""

    choices: list[_Choice] = []
    usage: Usage | None = None
    error: Any = None

    @property
    def text(self) -> str:
        """What was written."""
        return "".join(choice.text or (choice.delta.content if choice.delta else "") or "" for choice in self.choices)

    @property
    def finish(self) -> str:
        """Why the text ends here, or nothing."""
        return next((choice.finish_reason for choice in self.choices if choice.finish_reason), "")


PIECE = msgspec.json.Decoder(Piece)
