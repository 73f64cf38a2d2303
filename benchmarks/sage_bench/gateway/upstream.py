"""A server that answers OpenAI's requests with bytes made beforehand: ``python -m sage_bench.gateway.upstream``.

It costs next to nothing a request, so that what is measured is the gateway before it. It prints its port. A stream has
as many events as ``max_tokens`` says, each written by itself, one of every open stream in turn; with
``"user": "hold"`` they come once a second.
"""

from __future__ import annotations

import asyncio
import re
import sys
from typing import cast

from sage_bench.gateway.loops import run

_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
_TOKENS = re.compile(rb'"max_tokens": *(\d+)')
_STREAM = re.compile(rb'"stream": *true')

USAGE = b'"usage":{"prompt_tokens":12,"completion_tokens":16,"total_tokens":28}'
_HEAD = b'{"id":"chatcmpl-1","object":"chat.completion.chunk","created":1700000000,"model":"bench","choices":'
_SAID = b"It is a long established fact that a reader looks at the layout of a page, not at its words."
_BODY = (
    b'{"id":"chatcmpl-1","object":"chat.completion","created":1700000000,"model":"bench","choices":[{"index":0,"message":'
    b'{"role":"assistant","content":"' + _SAID + b'"},"finish_reason":"stop"}],' + USAGE + b"}"
)
_MODELS = b'{"object":"list","data":[{"id":"bench","object":"model","created":1700000000,"owned_by":"bench"}]}'


def _whole(body: bytes) -> bytes:
    return b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%b" % (len(body), body)


def _chunk(event: bytes) -> bytes:
    data = b"data: " + event + b"\n\n"
    return b"%x\r\n%b\r\n" % (len(data), data)


ANSWER, MODELS = _whole(_BODY), _whole(_MODELS)
START = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream; charset=utf-8\r\ntransfer-encoding: chunked\r\n\r\n"
#: Different ones: LiteLLM takes a model that says the same again and again for one that is broken.
EVENTS = [
    _chunk(_HEAD + b'[{"index":0,"delta":{"content":" ' + word + b'"},"finish_reason":null}]}')
    for word in _SAID.split()
]
FINISH = _chunk(_HEAD + b'[{"index":0,"delta":{},"finish_reason":"stop"}]}')
TOTALS = _chunk(_HEAD + b"[]," + USAGE + b"}")
DONE = _chunk(b"[DONE]") + b"0\r\n\r\n"


class Upstream(asyncio.Protocol):
    """One connection."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._buffer = b""
        self._open = True

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's are of no class of asyncio's.
        self._transport = cast(asyncio.Transport, transport)

    def connection_lost(self, exc: Exception | None) -> None:
        self._open = False

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        while (end := self._buffer.find(b"\r\n\r\n")) >= 0:
            found = _LENGTH.search(self._buffer, 0, end + 2)
            whole = end + 4 + (int(found[1]) if found else 0)
            if len(self._buffer) < whole:
                return
            request, self._buffer = self._buffer[:whole], self._buffer[whole:]
            self._answer(request, end)

    def _answer(self, request: bytes, end: int) -> None:
        if not _STREAM.search(request, end):
            self._transport.write(ANSWER if request.startswith(b"POST") else MODELS)
            return
        tokens = _TOKENS.search(request, end)
        held = b'"hold"' in request
        last = FINISH + (TOTALS if b"include_usage" in request else b"") + DONE
        self._transport.write(START)
        self._go_on(int(tokens[1]) if tokens else 16, 1.0 if held else 0.0, last)

    def _go_on(self, left: int, gap: float, last: bytes) -> None:
        if not self._open:
            return
        self._transport.write(EVENTS[left % len(EVENTS)] if left else last)
        if not left:
            return
        if gap:
            self._loop.call_later(gap, self._go_on, left - 1, gap, last)
        else:
            self._loop.call_soon(self._go_on, left - 1, gap, last)


async def serve() -> None:
    """Listen on a free port until standard input ends."""
    loop = asyncio.get_running_loop()
    server = await loop.create_server(Upstream, "127.0.0.1", 0, backlog=4_096)
    sys.stdout.write(f"{server.sockets[0].getsockname()[1]}\n")
    sys.stdout.flush()
    await loop.run_in_executor(None, sys.stdin.read)


if __name__ == "__main__":
    run(serve())
