"""One connection to a server: a request at a time, its answer in pieces as they come. HTTP/1.1, parsed by llhttp."""

from __future__ import annotations

import asyncio
from typing import cast

from httptools import HttpParserError, HttpResponseParser

#: Bytes that may lie unread before the server has to wait.
UNREAD = 256 * 1024
#: Bytes of an answer's head.
HEAD = 64 * 1024


class Lost(Exception):
    """What ended an answer before its end."""


class Silence(Lost):
    """Nothing came for too long."""


class Connection(asyncio.Protocol):
    """Holds one answer at a time; `ask`, then `head`, then `piece` until it is empty."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self.open = False
        #: When its last answer ended, on the loop's clock.
        self.rested = 0.0
        self._timer: asyncio.TimerHandle | None = None
        #: Only while there is an answer: it points back here, and such a pair waits for a garbage collection.
        self._parser: HttpResponseParser | None = None
        self._clear()

    def _clear(self) -> None:
        self._parts: list[bytes] = []
        self._size = 0
        self._paused = False
        self._headed = False
        self._measured = False
        self._waiter: asyncio.Future[None] | None = None
        self._error: Lost | None = None
        self._head_bytes = 0
        self.status = 0
        self.content_type = ""
        self.retry_after = ""
        self.packed = ""
        #: Whether all of the answer is there, and whether another one may follow it.
        self.complete = False
        self.kept = False

    # ------------------------------------------------------------ for the one who asks

    def ask(self, request: bytes, patience: float) -> None:
        """Send a request; `patience` is how many seconds may pass without a byte."""
        self._clear()
        self._parser = HttpResponseParser(self)
        self._transport.write(request)
        self.wait(patience)

    def wait(self, patience: float) -> None:
        """Change how many seconds may pass without a byte, from now on."""
        self._patience = patience
        self._heard = self._loop.time()
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._loop.call_later(patience, self._look)

    async def head(self) -> None:
        """Wait until status and headers are there; raises `Lost`."""
        while not self._headed:
            await self._more()

    async def piece(self) -> bytes:
        """Wait for whatever comes next, all of it that is there; empty at the end. Raises `Lost`."""
        while not self._parts:
            if self.complete:
                return b""
            await self._more()
        data = self._parts[0] if len(self._parts) == 1 else b"".join(self._parts)
        self._parts.clear()
        self._size = 0
        if self._paused and self.open:
            self._paused = False
            self._transport.resume_reading()
            self._heard = self._loop.time()
        return data

    def rest(self) -> bool:
        """End the answer, read or not; whether the connection can be used again."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._parser = None
        self.rested = self._loop.time()
        if not (self.open and self.complete and self.kept and self._error is None):
            self.close()
            return False
        return True

    def close(self) -> None:
        """Leave."""
        if self.open:
            self.open = False
            self._transport.abort()

    async def _more(self) -> None:
        if self._error is not None:
            raise self._error
        self._waiter = self._loop.create_future()
        try:
            await self._waiter
        finally:
            self._waiter = None

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def _look(self) -> None:
        left = self._heard + self._patience - self._loop.time()
        # While nobody reads here, the silence is not the server's.
        if self._paused:
            left = self._patience
        if left > 0.001:
            self._timer = self._loop.call_later(left, self._look)
        else:
            self._fail(Silence(f"{self._patience:g} s"))

    def _fail(self, error: Lost) -> None:
        if self._error is None and not self.complete:
            self._error = error
        self.close()
        self._wake()

    # ------------------------------------------------------------ for the event loop

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's are of no class of asyncio's.
        self._transport = cast(asyncio.Transport, transport)
        self.open = True

    def connection_lost(self, exc: Exception | None) -> None:
        self.open = False
        if self._headed and not self._measured and exc is None:
            # An answer without a length ends with its connection.
            self.complete = True
            self._wake()
        else:
            self._fail(Lost(f"the connection was lost: {exc}" if exc else "the server closed the connection"))

    def data_received(self, data: bytes) -> None:
        if self._parser is None or self.complete:
            # Nothing was asked for.
            self.kept = False
            self.close()
            return
        self._heard = self._loop.time()
        if not self._headed:
            self._head_bytes += len(data)
        try:
            self._parser.feed_data(data)
        except HttpParserError:
            self.kept = False
            self._fail(Lost("what came is no HTTP"))
            return
        if not self._headed and self._head_bytes > HEAD:
            self._fail(Lost("its headers do not end"))
        elif self._size > UNREAD and self.open and not self._paused:
            self._paused = True
            self._transport.pause_reading()

    # ------------------------------------------------------------ for the parser

    def on_header(self, name: bytes, value: bytes) -> None:
        """A header of the answer."""
        lower = name.lower()
        if lower == b"content-type":
            self.content_type = value.decode("latin-1")
        elif lower in (b"content-length", b"transfer-encoding"):
            self._measured = True
        elif lower == b"retry-after":
            self.retry_after = value.decode("latin-1")
        elif lower == b"content-encoding" and value.lower() != b"identity":
            self.packed = value.decode("latin-1")

    def on_headers_complete(self) -> None:
        """The head is there; one of the hundreds comes before the answer itself."""
        assert self._parser is not None
        self.status = self._parser.get_status_code()
        if self.status >= 200:
            self._headed = True
            self._wake()

    def on_body(self, body: bytes) -> None:
        """A piece of the answer."""
        self._parts.append(body)
        self._size += len(body)
        self._wake()

    def on_message_complete(self) -> None:
        """The answer has ended as its head said."""
        if self._headed:
            assert self._parser is not None
            self.complete = True
            self.kept = self._parser.should_keep_alive()
            self._wake()
