"""The HTTP side of a server: its connections, what its failures mean, and whether it lives."""

from __future__ import annotations

import asyncio
import email.utils
import ssl
import time
from types import TracebackType
from typing import Any, TypeVar
from urllib.parse import urlsplit

import msgspec

from sage_core import AttemptFailed, InvalidRequest, ModelError, ModelSpec
from sage_openai.connection import Connection, Lost, Silence
from sage_openai.options import Options

T = TypeVar("T")

EVENTS = "text/event-stream"
#: Seconds to connect.
CONNECT = 10.0
#: Seconds an unused connection is kept: many servers close theirs after five.
KEEP = 4.0
#: Bytes of an answer that is not a stream.
LONGEST = 256 * 1024 * 1024
#: Failed looks at a silent server after which its engine is given up.
LOOKS = 3
#: Statuses that say nothing about the request: ours is the key, and ours to mend.
_NOT_THE_CLIENTS = frozenset({401, 403, 407, 408, 421, 425, 429})
_PAUSES = (429, 503)


class Answer:
    """The beginning of an answer, and the pieces that follow as they come; leaving it gives the connection back."""

    __slots__ = ("_begun", "_connection", "_server", "content_type", "status")

    def __init__(self, server: Server, connection: Connection) -> None:
        self._server = server
        self._connection = connection
        self._begun = False
        self.status = connection.status
        self.content_type = connection.content_type

    def __enter__(self) -> Answer:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.rest(self._connection)

    @property
    def retry_after(self) -> str:
        """When the server wants to be asked again."""
        return self._connection.retry_after

    @property
    def streams(self) -> bool:
        """Whether it is a stream of events."""
        return self.content_type.startswith(EVENTS)

    async def whole(self, limit: int = LONGEST) -> bytes:
        """All of it, at once."""
        parts, length = [], 0
        while piece := await self.piece():
            length += len(piece)
            if length > limit:
                raise self._server.failed(f"its answer is longer than {limit >> 20} MiB")
            parts.append(piece)
        return b"".join(parts)

    async def piece(self) -> bytes:
        """Whatever has come, as soon as it is there; empty at the end."""
        server, connection = self._server, self._connection
        try:
            piece = await connection.piece()
        except Silence as silence:
            what = f"its answer stalled for {silence}" if self._begun else f"it sent nothing for {silence}"
            raise server.failed(what) from None
        except Lost as error:
            raise server.failed(f"its answer broke off: {error}") from None
        server.heard = time.monotonic()
        if not self._begun:
            self._begun = True
            if not connection.complete:
                connection.wait(server.options.stall)
        return piece


class Server:
    """Connections to one server; an async context manager."""

    def __init__(self, model: ModelSpec, options: Options) -> None:
        self.model = model
        self.options = options
        self.url = options.base_url.rstrip("/")
        #: When the last byte came, on the monotonic clock.
        self.heard = 0.0
        url = urlsplit(self.url)
        self._tls = _tls() if url.scheme == "https" else None
        self._host = url.hostname or ""
        self._port = url.port or (443 if self._tls else 80)
        self._path = url.path
        headers = {"Host": url.netloc, "User-Agent": "sage", "Accept-Encoding": "identity", **options.headers}
        if options.api_key:
            headers["Authorization"] = f"Bearer {options.api_key}"
        self._head = "".join(f"{name}: {value}\r\n" for name, value in headers.items()).encode("latin-1")
        self._idle: list[Connection] = []
        self._open = True

    async def __aenter__(self) -> Server:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._open = False
        for connection in self._idle:
            connection.close()

    async def post(self, path: str, body: bytes) -> Answer:
        """Send JSON; raises `AttemptFailed` where the answer is not about the request."""
        start = f"POST {self._path}{path} HTTP/1.1\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n"
        answer = await self._asked(start.encode(), body, self.options.timeout)
        status = answer.status
        if not (200 <= status < 300 or 400 <= status < 500) or status in _NOT_THE_CLIENTS:
            with answer:
                raise await self._refused(answer)
        return answer

    async def ask(self, path: str, body: Any, kind: type[T]) -> T:
        """Send JSON and read JSON; raises `InvalidRequest` for what the server says against it."""
        with await self.post(path, msgspec.json.encode(body)) as answer:
            data = await answer.whole()
            if answer.status >= 400:
                raise InvalidRequest(self.model.name, f"the server refused the request: {self.said(data)}")
            try:
                return msgspec.json.decode(data, type=kind)
            except (msgspec.MsgspecError, UnicodeDecodeError) as error:
                raise self.failed(f"it answered {path} with something else than expected: {error}") from None

    async def models(self) -> tuple[int, bytes]:
        """What the server says it serves: the status of its answer, and its body; raises `AttemptFailed`."""
        with await self._asked(f"GET {self._path}/models HTTP/1.1\r\n".encode(), b"", CONNECT) as answer:
            return answer.status, await answer.whole(4 * 1024 * 1024)

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
            except AttemptFailed as error:
                problem = error.args[1]
            failed = failed + 1 if problem else 0
            if failed == LOOKS:
                raise ModelError(self.model.name, f"the server at {self.url} is gone: {problem}", "start it again")

    def failed(self, problem: str, pause: float = 0.0) -> AttemptFailed:
        """The error for an attempt that another engine may do better."""
        return AttemptFailed(self.model.name, f"the server at {self.url} failed: {problem}", pause)

    def rest(self, connection: Connection) -> None:
        """Keep a connection whose answer is over, if it can be used again."""
        if connection.rest():
            if self._open:
                self._idle.append(connection)
            else:
                # An answer may end after its engine was given up: nobody would ask here again.
                connection.close()

    async def _asked(self, start: bytes, body: bytes, patience: float) -> Answer:
        connection = await self._answering(start + self._head + b"\r\n" + body, patience)
        if connection.packed:
            self.rest(connection)
            raise self.failed(f"it packs its answer with {connection.packed}, which it was asked not to do")
        return Answer(self, connection)

    async def _answering(self, request: bytes, patience: float) -> Connection:
        while True:
            kept = self._kept()
            connection = kept or await self._connect()
            try:
                connection.ask(request, patience)
                await connection.head()
            except Silence as silence:
                connection.rest()
                raise self.failed(f"it sent nothing for {silence}") from None
            except Lost as error:
                connection.rest()
                # A server may close an unused connection at the moment it is used again.
                if kept is None or connection.status:
                    raise self.failed(f"no answer: {error}") from None
            except BaseException:
                # Whoever leaves in the very moment in which all of the answer is there leaves a sound connection.
                self.rest(connection)
                raise
            else:
                return connection

    def _kept(self) -> Connection | None:
        oldest = asyncio.get_running_loop().time() - KEEP
        while self._idle:
            connection = self._idle.pop()
            if connection.open and connection.rested > oldest:
                return connection
            connection.close()
        return None

    async def _connect(self) -> Connection:
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(CONNECT):
                _, connection = await loop.create_connection(Connection, self._host, self._port, ssl=self._tls)
        except TimeoutError:
            raise self.failed(f"cannot connect in {CONNECT:g} s") from None
        except OSError as error:
            raise self.failed(f"cannot connect: {error.strerror or error}") from None
        return connection

    async def _refused(self, answer: Answer) -> AttemptFailed:
        try:
            said = self.said(await answer.piece())
        except AttemptFailed as error:
            said = error.args[1]
        if answer.status in (401, 403):
            return self.failed(f"it refuses the key: check api_key (status {answer.status}: {said})")
        pause = _seconds(answer.retry_after) if answer.status in _PAUSES else 0.0
        return self.failed(f"status {answer.status}: {said}", pause)

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
        if self.options.api_key:
            text = text.replace(self.options.api_key, "…")
        return text[:300]


def _tls() -> ssl.SSLContext:
    return ssl.create_default_context()


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
