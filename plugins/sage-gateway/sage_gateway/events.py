"""A stream of events on its way through: passed on as it comes, whole events only, without what was not asked for."""

from __future__ import annotations

import re

#: The end of an event, as servers write it.
_END = re.compile(rb"\r\n\r\n|\n\n|\r\r")
#: What the event with the totals looks like: no choice, and a usage.
_NO_CHOICES = re.compile(rb'"choices"\s*:\s*\[\s*\]')


class EventFilter:
    """Lets whole events through, and holds the beginning of one that has not come in full.

    A client cannot read half an event, so holding one delays nothing; but where a server dies in the middle of one,
    what it had begun is dropped, and the error that follows can be read.

    Args:
        drop_usage: take out the event that carries only the totals, which the client did not ask for.
    """

    __slots__ = ("_drop_usage", "_held")

    def __init__(self, *, drop_usage: bool) -> None:
        self._drop_usage = drop_usage
        self._held = b""

    def feed(self, data: bytes) -> bytes:
        """What may go to the client now."""
        if self._held:
            data, self._held = self._held + data, b""
        if not data.endswith(b"\n\n"):
            end = max(data.rfind(mark) + len(mark) if mark in data else 0 for mark in (b"\n\n", b"\r\n\r\n", b"\r\r"))
            data, self._held = data[:end], data[end:]
        if self._drop_usage and b'"usage"' in data and _NO_CHOICES.search(data):
            return b"".join(event for event in _events(data) if not _is_usage(event))
        return data

    @property
    def half(self) -> bool:
        """Whether an event has begun that has not ended."""
        return bool(self._held.strip())


def _events(data: bytes) -> list[bytes]:
    found, at = [], 0
    for end in _END.finditer(data):
        found.append(data[at : end.end()])
        at = end.end()
    return [*found, data[at:]]


def _is_usage(event: bytes) -> bool:
    return event.startswith(b"data:") and b'"usage"' in event and _NO_CHOICES.search(event) is not None
