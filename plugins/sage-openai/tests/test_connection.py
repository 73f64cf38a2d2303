"""One connection against bytes written by hand: heads, lengths, pauses, and what nobody asked for."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from sage_openai.connection import HEAD, UNREAD, Connection, Lost

WHOLE = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"
Speak = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


def ask(speak: Speak | bytes, use: Callable[[Connection], Awaitable[Any]]) -> Any:
    """Ask a server that says `speak`, and use the connection."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            if isinstance(speak, bytes):
                await reader.readuntil(b"\r\n\r\n")
                writer.write(speak)
                await writer.drain()
            else:
                await speak(reader, writer)
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    async def body() -> Any:
        async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
            port = server.sockets[0].getsockname()[1]
            _, connection = await asyncio.get_running_loop().create_connection(Connection, "127.0.0.1", port)
            try:
                return await use(connection)
            finally:
                connection.rest()
                connection.close()

    return asyncio.run(asyncio.wait_for(body(), 20))


async def whole(connection: Connection, patience: float = 5.0) -> bytes:
    connection.ask(b"GET / HTTP/1.1\r\n\r\n", patience)
    await connection.head()
    parts = []
    while piece := await connection.piece():
        parts.append(piece)
    return b"".join(parts)


def told(speak: Speak | bytes, patience: float = 5.0) -> str:
    async def use(connection: Connection) -> str:
        with pytest.raises(Lost) as caught:
            await whole(connection, patience)
        return f"{type(caught.value).__name__}: {caught.value}"

    said: str = ask(speak, use)
    return said


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (WHOLE, b"ok"),
        (b"HTTP/1.1 100 Continue\r\n\r\n" + WHOLE, b"ok"),
        (b"HTTP/1.0 200 OK\r\n\r\nuntil the end", b"until the end"),
        (
            b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n1\r\nd\r\n0\r\nx-trailer: 1\r\n\r\n",
            b"abcd",
        ),
        (b"HTTP/1.1 204 No Content\r\n\r\n", b""),
    ],
)
def test_an_answer_ends_as_its_head_says(answer: bytes, expected: bytes) -> None:
    assert ask(answer, whole) == expected


@pytest.mark.parametrize(
    ("answer", "problem"),
    [
        (b"", "Lost: the server closed the connection"),
        (b"HTTP/1.1 200 OK\r\nconte", "Lost: the server closed the connection"),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nhalf", "Lost: the server closed the connection"),
        (b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nab", "Lost: the server closed the connection"),
        (b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\nzz\r\n", "Lost: what came is no HTTP"),
        (b"HTTP/1.1 200 OK\r\ncontent-length: x\r\n\r\n", "Lost: what came is no HTTP"),
        (b"SSH-2.0-OpenSSH\r\n", "Lost: what came is no HTTP"),
        (b"HTTP/1.1 200 OK\r\n" + b"x: y\r\n" * HEAD, "Lost: its headers do not end"),
    ],
)
def test_what_is_no_answer_is_told(answer: bytes, problem: str) -> None:
    assert told(answer) == problem


def test_silence_is_told_apart() -> None:
    async def mute(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()

    assert told(mute, patience=0.05) == "Silence: 0.05 s"


def test_a_server_that_speaks_slowly_is_not_silent() -> None:
    async def slowly(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 8\r\n\r\n")
        for _ in range(8):
            await asyncio.sleep(0.05)
            writer.write(b".")
            await writer.drain()

    async def use(connection: Connection) -> bytes:
        return await whole(connection, 0.3)

    assert ask(slowly, use) == b"." * 8


def test_a_reader_that_does_not_read_holds_the_server_back_and_is_not_the_servers_silence() -> None:
    size = 64 * UNREAD

    async def gush(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % size)
        for _ in range(64):
            writer.write(b"x" * UNREAD)
            await writer.drain()

    async def use(connection: Connection) -> tuple[int, int]:
        connection.ask(b"GET / HTTP/1.1\r\n\r\n", 0.1)
        await connection.head()
        await asyncio.sleep(0.4)
        held = len(await connection.piece())
        rest = 0
        while piece := await connection.piece():
            rest += len(piece)
        return held, held + rest

    held, total = ask(gush, use)
    assert held < 4 * UNREAD
    assert total == size


def test_a_connection_is_kept_only_after_a_whole_answer() -> None:
    async def use(connection: Connection) -> bool:
        await whole(connection)
        return connection.rest()

    async def again(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while await reader.readuntil(b"\r\n\r\n"):
            writer.write(WHOLE)

    assert ask(again, use)
    assert not ask(WHOLE.replace(b"OK\r\n", b"OK\r\nconnection: close\r\n"), use)

    async def unread(connection: Connection) -> bool:
        connection.ask(b"GET / HTTP/1.1\r\n\r\n", 5)
        await connection.head()
        return connection.rest()

    half = b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nhalf"

    async def hold(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(half)
        await reader.read()

    assert not ask(hold, unread)


def test_what_nobody_asked_for_closes_the_connection() -> None:
    async def more(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(WHOLE)
        await asyncio.sleep(0.02)
        writer.write(WHOLE)
        await reader.read()

    async def use(connection: Connection) -> bool:
        assert await whole(connection) == b"ok"
        kept = connection.rest()
        while connection.open:  # noqa: ASYNC110 - it is the other side that changes it
            await asyncio.sleep(0.005)
        return kept

    assert ask(more, use)
