"""Where the answer to one request goes, on either side of the socket."""

from __future__ import annotations

import asyncio
from typing import Any

from sage_core.common.records import Chunk, Token

#: Pieces of a stream, and bytes of them, that may lie unread before its engine has to wait.
UNREAD, UNREAD_BYTES = 256, 2**20


class Reply:
    """One future, and for a stream the tokens before it; what comes after the end is dropped."""

    __slots__ = ("_bytes", "_read", "_tokens", "done")

    def __init__(self) -> None:
        self.done: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._tokens: asyncio.Queue[Any] = asyncio.Queue()
        self._bytes = 0
        self._read = asyncio.Event()

    def push(self, piece: Token | Chunk) -> None:
        """Hand over the next piece of a stream."""
        if isinstance(piece, Chunk):
            self._bytes += len(piece.data)
        self._tokens.put_nowait(piece)

    @property
    def unread(self) -> int:
        """Pieces that lie unread."""
        return self._tokens.qsize()

    @property
    def unread_bytes(self) -> int:
        """What they hold of chunks."""
        return self._bytes

    async def room(self) -> None:
        """Wait until a slow reader has caught up."""
        while self._tokens.qsize() > UNREAD or self._bytes > UNREAD_BYTES:
            self._read.clear()
            await self._read.wait()

    def give(self, answer: Any) -> None:
        """End the request well; a stream's answer is nothing more than its end."""
        if not self.done.done():
            self.done.set_result(answer)
        self._tokens.put_nowait(None)

    def fail(self, error: Exception) -> None:
        """End the request with an error."""
        if not self.done.done():
            self.done.set_exception(error)
            # A caller that was cancelled does not look at the error any more.
            self.done.exception()
        self._tokens.put_nowait(None)

    async def token(self) -> Any:
        """Wait for the next piece; None at the end. Raises the error that ended the stream."""
        piece = await self._tokens.get()
        self._read.set()
        if piece is None:
            await self.done
        elif isinstance(piece, Chunk):
            self._bytes -= len(piece.data)
        return piece
