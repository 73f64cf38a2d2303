"""The link to an engine host: what it sends, repeats, cancels and gives up, with a host that does as the test says."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine
from contextlib import aclosing, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

import sage_core.testing.engines as fake
from sage_core.common.errors import EngineHostError, ModelError
from sage_core.common.host import Host
from sage_core.common.paths import Paths
from sage_core.common.records import ModelSpec, Request, Token
from sage_core.kernel.control_plane import frames
from sage_core.kernel.control_plane.frames import (
    PROTOCOL,
    Answer,
    Ask,
    Cancel,
    Frame,
    Hello,
    Piece,
    Welcome,
    answered,
    failure,
    socket_path,
)
from sage_core.kernel.control_plane.remote import EngineHostLink

SPEC = ModelSpec(name="m", backend="fake")


class Peer:
    """The host's end of one connection, greeted already."""

    def __init__(self, hello: Hello, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.hello = hello
        self._reader = reader
        self._writer = writer

    async def heard(self) -> Frame | None:
        return await frames.read(self._reader)

    async def asked(self) -> str:
        frame = await self.heard()
        assert isinstance(frame, Ask)
        return frame.request.id

    def say(self, *sent: Frame) -> None:
        for frame in sent:
            self._writer.write(frames.pack(frame))


Script = Callable[[Peer], Awaitable[None]]


def awaited(test: Callable[[Path], Coroutine[Any, Any, None]]) -> Callable[[Path], None]:
    """Run an async test to its end."""

    def run(tmp_path: Path) -> None:
        asyncio.run(test(tmp_path))

    return run


def paths_in(folder: Path) -> Paths:
    return Paths(project=folder / "project", data=folder / "data", runtime=folder / "run")


def link_to(paths: Paths, patience: float = 20) -> EngineHostLink:
    return EngineHostLink({"m": SPEC}, paths, Host({"fake": fake}), worker="w", patience=patience)


@asynccontextmanager
async def scripted(folder: Path, *scripts: Script) -> AsyncGenerator[EngineHostLink]:
    """A link to a host whose connections go by these scripts, one after the other, and end with them."""
    left = iter(scripts)

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        hello = await frames.read(reader)
        assert isinstance(hello, Hello)
        writer.write(frames.pack(Welcome(protocol=PROTOCOL, pid=7)))
        try:
            await next(left)(Peer(hello, reader, writer))
        finally:
            writer.close()

    paths = paths_in(folder)
    socket_path(paths).parent.mkdir(parents=True)
    async with await asyncio.start_unix_server(accept, socket_path(paths)), link_to(paths) as link:
        yield link
    assert list(left) == [], "a script was not played"


def rerank(name: str = "r") -> Request:
    return Request(id=name, kind="rerank", model="m", texts=("query", "document"))


async def dying(peer: Peer) -> None:
    await peer.asked()


@awaited
async def test_answers_reach_whoever_asked_in_any_order(tmp_path: Path) -> None:
    greeted: list[Hello] = []

    async def host(peer: Peer) -> None:
        greeted.append(peer.hello)
        names = [await peer.asked(), await peer.asked()]
        peer.say(answered("nobody", [9.0]), answered(names[1], [2.0]), failure(names[0], "m", ModelError("m", "no")))
        await peer.heard()

    async with scripted(tmp_path, host) as link:
        first: object
        second: object
        first, second = await asyncio.gather(
            link.ask(rerank("a"), SPEC), link.ask(rerank("b"), SPEC), return_exceptions=True
        )
        assert str(first) == "model 'm': no"
        assert second == [2.0]
        assert link.host_pid == 7
    (hello,) = greeted
    assert (hello.protocol, hello.worker, hello.models) == (PROTOCOL, "w", {"m": SPEC})
    assert hello.logs == str(paths_in(tmp_path).logs)


@awaited
async def test_a_stream_ends_with_its_answer(tmp_path: Path) -> None:
    async def host(peer: Peer) -> None:
        name = await peer.asked()
        peer.say(*(Piece(id=name, token=Token(text=text)) for text in "abc"), Answer(id=name))
        await peer.heard()

    async with scripted(tmp_path, host) as link:
        tokens = [token.text async for token in link.generate(Request(id="r", kind="generate", model="m"), SPEC)]
        assert tokens == ["a", "b", "c"]


@awaited
async def test_who_leaves_early_cancels_and_who_has_the_answer_does_not(tmp_path: Path) -> None:
    heard: list[Frame | None] = []

    async def host(peer: Peer) -> None:
        peer.say(answered(await peer.asked(), [1.0]))
        name = await peer.asked()
        peer.say(Piece(id=name, token=Token(text="a")))
        heard.append(await peer.heard())
        await peer.asked()
        asked.set()
        heard.append(await peer.heard())

    asked = asyncio.Event()
    async with scripted(tmp_path, host) as link:
        assert await link.ask(rerank("answered"), SPEC) == [1.0]
        stream = link.generate(Request(id="closed", kind="generate", model="m"), SPEC)
        async with aclosing(stream):  # type: ignore[type-var]
            assert (await anext(stream)).text == "a"
        task = asyncio.create_task(link.ask(rerank("cancelled"), SPEC))
        await asked.wait()
        task.cancel()
        await asyncio.wait([task])
        assert task.cancelled()
    assert heard == [Cancel(id="closed"), Cancel(id="cancelled")]


@awaited
async def test_what_had_streamed_nothing_is_asked_once_more(tmp_path: Path) -> None:
    async def next_host(peer: Peer) -> None:
        peer.say(answered(await peer.asked(), [0.5]))
        await peer.heard()

    async with scripted(tmp_path, dying, next_host) as link:
        assert await link.ask(rerank(), SPEC) == [0.5]


@awaited
async def test_what_two_hosts_died_of_is_an_error_and_the_next_request_finds_a_third(tmp_path: Path) -> None:
    async def next_host(peer: Peer) -> None:
        peer.say(answered(await peer.asked(), [0.5]))
        await peer.heard()

    async with scripted(tmp_path, dying, dying, next_host) as link:
        with pytest.raises(EngineHostError, match=r"process 7 died while it worked on this request\n  help: its"):
            await link.ask(rerank("deadly"), SPEC)
        assert await link.ask(rerank("harmless"), SPEC) == [0.5]


@awaited
async def test_a_stream_that_has_begun_is_not_asked_again(tmp_path: Path) -> None:
    async def host(peer: Peer) -> None:
        peer.say(Piece(id=await peer.asked(), token=Token(text="a")))

    async with scripted(tmp_path, host) as link:
        stream = link.generate(Request(id="r", kind="generate", model="m"), SPEC)
        assert (await anext(stream)).text == "a"
        with pytest.raises(EngineHostError, match="died while it worked on this request"):
            await anext(stream)


@awaited
async def test_closing_the_link_ends_what_waits(tmp_path: Path) -> None:
    async def host(peer: Peer) -> None:
        await peer.asked()
        asked.set()
        assert await peer.heard() is None

    asked = asyncio.Event()
    async with scripted(tmp_path, host) as link:
        task = asyncio.create_task(link.ask(rerank(), SPEC))
        await asked.wait()
    with pytest.raises(EngineHostError, match="the client was closed"):
        await task


@awaited
async def test_a_host_that_accepts_and_says_nothing_is_given_up(tmp_path: Path) -> None:
    closed = asyncio.Event()

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()
        closed.set()

    paths = paths_in(tmp_path)
    socket_path(paths).parent.mkdir(parents=True)
    async with await asyncio.start_unix_server(accept, socket_path(paths)), link_to(paths, patience=0.1) as link:
        with pytest.raises(EngineHostError, match=r"engine host: it did not answer within 0\.1 s\n  help: its"):
            await link.ask(rerank(), SPEC)
        await closed.wait()


@awaited
async def test_a_host_that_cannot_be_started_says_what_is_in_the_way(tmp_path: Path) -> None:
    paths = paths_in(tmp_path)
    paths.project.write_text("a file where a folder should be")
    async with link_to(paths) as link:
        with pytest.raises(EngineHostError, match=r"it cannot be started or reached: .*/project") as caught:
            await link.ask(rerank(), SPEC)
        assert isinstance(caught.value.__cause__, OSError)
