"""Posting: one answer, or an error that a caller may try again after."""

from __future__ import annotations

import asyncio

import pytest
from sage_gateway.posting import Posted, post


async def posted(answer: bytes) -> tuple[Posted, bytes]:
    heard: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heard.append(await reader.readuntil(b"{}"))
        writer.write(answer)
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        found = await post(f"http://127.0.0.1:{port}/v1/x", {"authorization": "Bearer k"}, b"{}")
    return found, heard[0]


def test_an_answer_is_read_whole() -> None:
    head = b"HTTP/1.1 429 \r\nContent-Length: 4\r\nRetry-After: 7\r\nX-Sage-Request-Id: r1\r\n\r\n"
    found, heard = asyncio.run(posted(head + b"full"))
    assert found == Posted(status=429, body=b"full", request="r1", retry_after=7.0)
    assert heard.startswith(b"POST /v1/x HTTP/1.1\r\n")
    assert b"\r\nauthorization: Bearer k\r\n" in heard
    assert b"\r\ncontent-length: 2\r\n" in heard


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"HTTP/1.1 200 OK\r\n",
        b"HTTP/1.1 200 OK\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nhalf",
        b"HTTP/1.1 200 OK\r\ncontent-length: many\r\n\r\n",
    ],
)
def test_an_answer_that_breaks_off_is_an_error(answer: bytes) -> None:
    with pytest.raises(ConnectionError, match="broke off"):
        asyncio.run(posted(answer))


def test_nobody_there_is_an_error() -> None:
    with pytest.raises(OSError, match=r"."):
        asyncio.run(post("http://127.0.0.1:1/v1/x", {}, b"{}"))


def test_a_stream_in_place_of_a_whole_answer_is_the_engines_fault() -> None:
    found, _ = asyncio.run(posted(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\ndata:\r\n"))
    assert (found.status, found.code) == (502, "")
