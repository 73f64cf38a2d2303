"""Where the answer to one request goes, on either side of the socket."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Any

from sage_core.common.records import Chunk, Token

#: Pieces of a stream, and bytes of them, that may lie unread before its engine has to wait.
UNREAD, UNREAD_BYTES = 256, 2**20


class Reply:
    """One future, and for a stream the tokens before it; what comes after the end is dropped."""

    __slots__ = ("_loop", "_pieces", "_reader", "_writer", "done", "unread_bytes")

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self.done: asyncio.Future[Any] = self._loop.create_future()
        self._pieces: deque[Any] = deque()
        #: What the one who reads waits for, and what the one who writes.
        self._reader: asyncio.Future[None] | None = None
        self._writer: asyncio.Future[None] | None = None
        #: What the pieces that lie unread hold of chunks.
        self.unread_bytes = 0

    def push(self, piece: Token | Chunk) -> None:
        """Hand over the next piece of a stream."""
        if isinstance(piece, Chunk):
            self.unread_bytes += len(piece.data)
        self._put(piece)

    @property
    def unread(self) -> int:
        """Pieces that lie unread."""
        return len(self._pieces)

    async def room(self) -> None:
        """Wait until a slow reader has caught up."""
        while len(self._pieces) > UNREAD or self.unread_bytes > UNREAD_BYTES:
            self._writer = self._loop.create_future()
            await self._writer

    def give(self, answer: Any) -> None:
        """End the request well; a stream's answer is nothing more than its end."""
        if not self.done.done():
            self.done.set_result(answer)
        self._put(None)

    def fail(self, error: Exception) -> None:
        """End the request with an error."""
        if not self.done.done():
            self.done.set_exception(error)
            # A caller that was cancelled does not look at the error any more.
            self.done.exception()
        self._put(None)

    async def token(self) -> Any:
        """Wait for the next piece; None at the end. Raises the error that ended the stream."""
        while not self._pieces:
            self._reader = self._loop.create_future()
            await self._reader
        piece = self._pieces.popleft()
        _wake(self._writer)
        if piece is None:
            await self.done
        elif isinstance(piece, Chunk):
            self.unread_bytes -= len(piece.data)
        return piece

    def _put(self, piece: Any) -> None:
        self._pieces.append(piece)
        _wake(self._reader)


def _wake(waiter: asyncio.Future[None] | None) -> None:
    if waiter is not None and not waiter.done():
        waiter.set_result(None)
