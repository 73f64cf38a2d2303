"""The HTTP side of a server: its connections, what its failures mean, and whether it lives."""

from __future__ import annotations

import asyncio
import email.utils
import time
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, asynccontextmanager
from types import TracebackType
from typing import Any, TypeVar

import aiohttp
import msgspec

from sage_core import AttemptFailed, ModelError, ModelSpec
from sage_openai.options import Options

T = TypeVar("T")

EVENTS = "text/event-stream"
#: Seconds to connect.
CONNECT = 10.0
#: Seconds an unused connection is kept: many servers close theirs after five.
KEEP = 4.0
#: Seconds between two looks at whether the connection of an answer is still there.
LOOK = 0.25
#: Bytes of an answer that is not a stream.
LONGEST = 256 * 1024 * 1024
#: Failed looks at a silent server after which its engine is given up.
LOOKS = 3
#: Statuses that say nothing about the request: ours is the key, and ours to mend.
_NOT_THE_CLIENTS = frozenset({401, 403, 407, 408, 421, 425, 429})
_PAUSES = (429, 503)


class Answer:
    """The beginning of an answer, and the pieces that follow as they come."""

    __slots__ = ("_response", "_server", "_timer", "content_type", "status")

    def __init__(self, server: Server, response: aiohttp.ClientResponse) -> None:
        self._server = server
        self._response = response
        self.status = response.status
        self.content_type = response.headers.get("Content-Type", "")

    @property
    def streams(self) -> bool:
        """Whether it is a stream of events."""
        return self.content_type.startswith(EVENTS)

    async def whole(self) -> bytes:
        """All of it, at once."""
        parts, length = [], 0
        async with aclosing(self.pieces()) as pieces:
            async for piece in pieces:
                length += len(piece)
                if length > LONGEST:
                    raise self._server.failed(f"its answer is longer than {LONGEST >> 20} MiB")
                parts.append(piece)
        return b"".join(parts)

    async def pieces(self) -> AsyncGenerator[bytes]:
        """Whatever has come, as soon as it is there."""
        content, server = self._response.content, self._server
        first = True
        self._look()
        try:
            while True:
                piece = await content.readany()
                if not piece:
                    # Nothing may have come yet of a body that is cut into chunks.
                    if content.at_eof():
                        return
                    continue
                server.heard = time.monotonic()
                if first and self._response.connection is not None:
                    first = False
                    protocol = self._response.connection.protocol
                    if protocol is not None:
                        protocol.read_timeout = server.options.stall
                        protocol.start_timeout()
                yield piece
        except aiohttp.ServerTimeoutError:
            what = (
                f"it sent nothing for {server.options.timeout:g} s"
                if first
                else (f"its answer stalled for {server.options.stall:g} s")
            )
            raise server.failed(what) from None
        except (aiohttp.ClientError, OSError) as error:
            raise server.failed(f"its answer broke off: {_told(error)}") from None
        finally:
            self._timer.cancel()

    def _look(self) -> None:
        # aiohttp closes a connection on which garbage comes between two chunks, and does not tell its readers.
        connection, content = self._response.connection, self._response.content
        protocol = connection.protocol if connection is not None else None
        if (
            protocol is not None
            and not protocol.is_connected()
            and not content.is_eof()
            and content.exception() is None
        ):
            content.set_exception(aiohttp.ClientPayloadError("what came is no HTTP"))
        self._timer = asyncio.get_running_loop().call_later(LOOK, self._look)


class Server:
    """Connections to one server; an async context manager."""

    def __init__(self, model: ModelSpec, options: Options) -> None:
        self.model = model
        self.options = options
        self.url = options.base_url.rstrip("/")
        #: When the last byte came, on the monotonic clock.
        self.heard = 0.0
        self._key = options.api_key

    async def __aenter__(self) -> Server:
        headers = {"Accept-Encoding": "identity", "User-Agent": "sage", **self.options.headers}
        if self._key:
            headers["Authorization"] = f"Bearer {self._key}"
        self._session = aiohttp.ClientSession(
            # How many requests it is sent at once is decided before they come here.
            connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=KEEP),
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=CONNECT, sock_read=self.options.timeout),
            headers=headers,
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
            trust_env=False,
        )
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._session.close()

    @asynccontextmanager
    async def post(self, path: str, body: bytes) -> AsyncIterator[Answer]:
        """Send JSON; raises `AttemptFailed` where the answer is not about the request."""
        response = await self._send(path, body)
        try:
            answer = Answer(self, response)
            if not (response.status < 300 or 400 <= response.status < 500) or response.status in _NOT_THE_CLIENTS:
                raise await self._refused(answer)
            yield answer
        finally:
            # Gives the connection back where the answer was read to its end, and closes it where it was not.
            response.close()

    async def ask(self, path: str, body: Any, kind: type[T]) -> T:
        """Send JSON and read JSON; raises `ModelError` for what the server says against the request."""
        async with self.post(path, msgspec.json.encode(body)) as answer:
            data = await answer.whole()
            if answer.status >= 400:
                raise ModelError(self.model.name, f"the server refused the request: {self.said(data)}")
            try:
                return msgspec.json.decode(data, type=kind)
            except (msgspec.MsgspecError, UnicodeDecodeError) as error:
                raise self.failed(f"it answered {path} with something else than expected: {error}") from None

    async def models(self) -> tuple[int, bytes]:
        """What the server says it serves: the status of its answer, and its body."""
        timeout = aiohttp.ClientTimeout(total=CONNECT)
        async with self._session.get(f"{self.url}/models", timeout=timeout, allow_redirects=False) as response:
            return response.status, await response.content.read(4 * 1024 * 1024)

    async def watch(self) -> None:
        """Look after a silent server; raises `ModelError` when it is gone."""
        failed = 0
        while True:
            # Without an end: returning would say that the server is gone.
            await asyncio.sleep(self.options.health or 3_600.0)
            if not self.options.health:
                continue
            if time.monotonic() - self.heard < self.options.health:
                failed = 0
                continue
            try:
                status, _ = await self.models()
                problem = f"it answers with status {status}" if status >= 500 else ""
            except (aiohttp.ClientError, OSError) as error:
                problem = _told(error)
            failed = failed + 1 if problem else 0
            if failed == LOOKS:
                raise ModelError(self.model.name, f"the server at {self.url} is gone: {problem}", "start it again")

    def failed(self, problem: str, pause: float = 0.0) -> AttemptFailed:
        """The error for an attempt that another engine may do better."""
        return AttemptFailed(self.model.name, f"the server at {self.url} failed: {problem}", pause)

    async def _send(self, path: str, body: bytes) -> aiohttp.ClientResponse:
        fresh = False
        while True:
            try:
                return await self._session.post(
                    self.url + path,
                    data=body,
                    headers={"Content-Type": "application/json"},
                    allow_redirects=False,
                )
            except aiohttp.ClientConnectorError as error:
                raise self.failed(f"cannot connect: {_told(error)}") from None
            except aiohttp.ServerTimeoutError:
                raise self.failed(f"it sent nothing for {self.options.timeout:g} s") from None
            except (aiohttp.ClientError, OSError) as error:
                # A server may close an unused connection at the moment it is used again.
                if fresh or not isinstance(error, (aiohttp.ServerDisconnectedError, ConnectionError)):
                    raise self.failed(f"no answer: {_told(error)}") from None
                fresh = True

    async def _refused(self, answer: Answer) -> AttemptFailed:
        response = answer._response
        try:
            said = self.said(await response.content.read(4_096))
        except (aiohttp.ClientError, OSError) as error:
            said = _told(error)
        if response.status in (401, 403):
            return self.failed(f"it refuses the key: check api_key (status {response.status}: {said})")
        pause = _seconds(response.headers.get("Retry-After", "")) if response.status in _PAUSES else 0.0
        return self.failed(f"status {response.status}: {said}", pause)

    def said(self, data: bytes) -> str:
        """The message of an error, short, and without the key that some servers repeat."""
        text = data.decode("utf-8", "replace")
        try:
            error = msgspec.json.decode(data)
            error = error.get("error", error)
            message = error if isinstance(error, str) else error.get("message") or error.get("detail")
            text = message if isinstance(message, str) else text
        except (msgspec.MsgspecError, UnicodeDecodeError, AttributeError):
            pass
        if self._key:
            text = text.replace(self._key, "…")
        return text[:300]


def _told(error: BaseException) -> str:
    if isinstance(error, aiohttp.ClientConnectorError):
        error = error.os_error
        if isinstance(error, OSError) and error.strerror:
            return error.strerror
    if isinstance(error, aiohttp.ClientResponseError):
        # Its message shows the bytes in several lines.
        return "what came is no HTTP"
    return f"{type(error).__name__}: {error}"[:200]


def _seconds(after: str) -> float:
    """What a Retry-After asks for: seconds, or a date."""
    try:
        return max(0.0, min(float(after), 3_600.0))
    except ValueError:
        pass
    try:
        return max(0.0, min(email.utils.parsedate_to_datetime(after).timestamp() - time.time(), 3_600.0))
    except (TypeError, ValueError):
        return 1.0
