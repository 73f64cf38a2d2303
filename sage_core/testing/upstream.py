"""`FakeUpstream`: a real HTTP server before a `FakeEngine`, with faults down to single bytes.

For tests of what speaks OpenAI's HTTP: clients, backends, gateways. It stands on bare asyncio streams, because most of
its faults are what an HTTP library refuses to send.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import aclosing
from types import TracebackType
from typing import Literal

import msgspec

from sage_core.common.errors import AttemptFailed
from sage_core.common.records import Chunk, Request
from sage_core.testing.engines import FakeEngine, FakeOptions

#: What may go wrong with an answer.
Fault = Literal[
    "",
    "status",  # `FakeUpstream.status` with `FakeUpstream.headers`
    "close",  # the connection is closed without an answer
    "hang",  # nothing comes, ever
    "not_http",  # bytes that are no HTTP
    "html",  # a page, with status 200
    "not_json",  # what calls itself JSON and is none
    "break",  # the connection is closed after the first piece
    "stall",  # nothing comes after the first piece
    "garbage",  # bytes that are no event after the first piece
    "half",  # the stream ends well, in the middle of an event
    "no_done",  # the stream ends well, without [DONE]
    "too_short",  # fewer bytes than the content-length says
    "too_long",  # more bytes than the content-length says
]


class Seen(msgspec.Struct, frozen=True, kw_only=True):
    """A request as it came: its path, its headers with lower-case names, its body."""

    path: str
    headers: Mapping[str, str]
    body: bytes


class _Reader(asyncio.StreamReader):
    """A stream that tells when the other side has left, without being read."""

    def __init__(self, *, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(loop=loop)
        self.gone = asyncio.Event()

    def feed_eof(self) -> None:
        super().feed_eof()
        self.gone.set()

    def set_exception(self, exc: Exception) -> None:
        super().set_exception(exc)
        self.gone.set()


class FakeUpstream:
    """Listens on a free loopback port; an async context manager.

    Args:
        options: how the engine behind it behaves.
        models: names it says it serves; any name is answered.
        key: the bearer token it wants; empty takes any.
    """

    def __init__(
        self, options: FakeOptions | None = None, *, models: tuple[str, ...] = ("fake",), key: str = ""
    ) -> None:
        self.engine = FakeEngine("fake", options or FakeOptions(sequences=1_000))
        self.models = models
        self.key = key
        self.fault: Fault = ""
        #: What the fault `status` answers.
        self.status = 500
        self.headers: dict[str, str] = {}
        #: Requests that came, but for those for the list of models, and how often that was asked for.
        self.seen: list[Seen] = []
        self.looks = 0
        #: Connections that are open now, and all there ever were.
        self.connections = 0
        self.accepted = 0
        #: Set when no connection is open.
        self.quiet = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()
        self._port = 0

    @property
    def url(self) -> str:
        """Its base address, as ``base_url`` takes it."""
        return f"http://127.0.0.1:{self._port}/v1"

    async def __aenter__(self) -> FakeUpstream:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()

    async def start(self) -> None:
        """Listen, on the port it had before if it had one."""
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(self._connection, "127.0.0.1", self._port)
        self._port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        """Close every connection and listen no more."""
        self._server.close()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._server.wait_closed()

    def _connection(self) -> asyncio.StreamReaderProtocol:
        loop = asyncio.get_running_loop()
        reader = _Reader(loop=loop)
        return asyncio.StreamReaderProtocol(reader, lambda _, writer: self._accept(reader, writer), loop=loop)

    def _accept(self, reader: _Reader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.get_running_loop().create_task(self._serve(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve(self, reader: _Reader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self.accepted += 1
        self.quiet.clear()
        try:
            while (seen := await _read(reader)) is not None:
                if not await self._respond(seen, reader, writer):
                    break
        except (ConnectionError, asyncio.CancelledError):
            pass
        finally:
            self.connections -= 1
            if not self.connections:
                self.quiet.set()
            writer.close()

    async def _respond(self, seen: Seen, reader: _Reader, writer: asyncio.StreamWriter) -> bool:
        """Answer a request; whether the connection may be used again."""
        if self.key and seen.headers.get("authorization") != f"Bearer {self.key}":
            error = {"error": {"message": f"wrong key: {seen.headers.get('authorization')}"}}
            return await _write(writer, _head(401), msgspec.json.encode(error))
        if seen.path.endswith("/models"):
            self.looks += 1
            models = [{"id": name, "object": "model", "owned_by": "fake"} for name in self.models]
            if self.fault != "status":
                return await _write(writer, _head(200), msgspec.json.encode({"object": "list", "data": models}))
        else:
            self.seen.append(seen)
        if self.fault in _WITHOUT_ENGINE:
            return await self._fail(reader, writer)
        # A client that leaves is noticed while the engine works, not at the next write.
        gone = asyncio.ensure_future(reader.gone.wait())
        work = asyncio.ensure_future(self._stream(seen, writer))
        try:
            await asyncio.wait((gone, work), return_when=asyncio.FIRST_COMPLETED)
            return work.done() and await work
        finally:
            for task in (gone, work):
                task.cancel()
            await asyncio.gather(gone, work, return_exceptions=True)

    async def _fail(self, reader: _Reader, writer: asyncio.StreamWriter) -> bool:
        if self.fault == "hang":
            await reader.gone.wait()
        elif self.fault == "not_http":
            await _write(writer, b"", b"220 mail.example.org ESMTP\r\n\r\n")
        elif self.fault == "html":
            await _write(writer, _head(200, "text/html"), b"<html>It works!</html>")
        elif self.fault == "not_json":
            await _write(writer, _head(200), b'{"choices": [')
        elif self.fault == "status":
            error = {"error": {"message": f"told to answer {self.status}", "type": "server_error"}}
            return await _write(writer, _head(self.status, headers=self.headers), msgspec.json.encode(error))
        return False

    async def _stream(self, seen: Seen, writer: asyncio.StreamWriter) -> bool:
        request = Request(id="upstream", kind="generate", model="fake", path=seen.path, body=seen.body)
        chunks: AsyncIterator[Chunk] = self.engine.forward(request)
        began = False
        async with aclosing(chunks):  # type: ignore[type-var]  # a generator
            try:
                async for chunk in chunks:
                    events = chunk.content_type.startswith("text/event-stream")
                    if not events:
                        return await self._whole(writer, chunk)
                    if not began:
                        writer.write(_head(200, chunk.content_type, {"transfer-encoding": "chunked"}))
                    data = chunk.data
                    last = data.endswith(b"data: [DONE]\n\n")
                    if last and self.fault == "no_done":
                        data = data.removesuffix(b"data: [DONE]\n\n")
                    if last and self.fault == "half":
                        data = data.removesuffix(b"\n\ndata: [DONE]\n\n")[:-9]
                    if data:
                        await _write(writer, b"", b"%x\r\n%b\r\n" % (len(data), data))
                    if not began and not await self._go_on(writer):
                        return False
                    began = True
            except AttemptFailed as error:
                body = msgspec.json.encode({"error": {"message": str(error), "type": "server_error"}})
                return not began and await _write(writer, _head(500), body)
        await _write(writer, b"", b"0\r\n\r\n")
        return True

    async def _go_on(self, writer: asyncio.StreamWriter) -> bool:
        """Whether a stream that has begun goes on."""
        if self.fault == "stall":
            await asyncio.Event().wait()
        if self.fault == "garbage":
            # So that the first piece arrives by itself.
            await asyncio.sleep(0.02)
            await _write(writer, b"", b"\x00\xff not a chunk \r\n")
        return self.fault not in ("break", "garbage")

    async def _whole(self, writer: asyncio.StreamWriter, chunk: Chunk) -> bool:
        length = len(chunk.data) + (10 if self.fault == "too_short" else -10 if self.fault == "too_long" else 0)
        head = _head(chunk.status, chunk.content_type, {"content-length": str(length)})
        if self.fault in ("break", "stall", "garbage"):
            await _write(writer, b"", head + chunk.data[:10])
            return await self._go_on(writer)
        await _write(writer, b"", head + chunk.data)
        return self.fault != "too_short"


_WITHOUT_ENGINE = ("status", "close", "hang", "not_http", "html", "not_json")


async def _read(reader: _Reader) -> Seen | None:
    try:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
    except asyncio.IncompleteReadError:
        return None
    first, *lines = head.split("\r\n")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines if line)}
    body = await reader.readexactly(int(headers.get("content-length", 0)))
    return Seen(path=first.split(" ")[1], headers=headers, body=body)


def _head(status: int, content_type: str = "application/json", headers: Mapping[str, str] | None = None) -> bytes:
    lines = [f"HTTP/1.1 {status} Fake", f"content-type: {content_type}"]
    lines += [f"{name}: {value}" for name, value in (headers or {}).items()]
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")


async def _write(writer: asyncio.StreamWriter, head: bytes, body: bytes) -> bool:
    if head:
        head = head.removesuffix(b"\r\n") + b"content-length: %d\r\n\r\n" % len(body)
    writer.write(head + body)
    await writer.drain()
    return True
