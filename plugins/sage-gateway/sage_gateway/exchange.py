"""One HTTP request and its answer: plain ASGI, no framework objects on the hot path."""

from __future__ import annotations

import asyncio
import logging
import time
import traceback
from collections.abc import Awaitable, Callable, Mapping, MutableMapping, Sequence
from typing import Any, TypeVar

import msgspec

from sage_core import SECOND
from sage_core.serving import Trail, log
from sage_gateway.accounts import Account
from sage_gateway.errors import ApiError, explained
from sage_gateway.gateway import Gateway

Message = MutableMapping[str, Any]
Headers = Sequence[tuple[bytes, bytes]]
T = TypeVar("T")

JSON = b"application/json"
SSE = b"text/event-stream; charset=utf-8"


#: Seconds after which a request that is still being answered is worth watching its client: most are over by then.
LOOK_AFTER = 0.05


class Gone(Exception):
    """The client has closed its connection."""


class Exchange:
    """A request being answered; a route's handler gets one and awaits what it needs.

    After the body is read, a client that goes away cancels the handler's task, `LOOK_AFTER` later at most: whatever it
    awaits is cleaned up by the ordinary rules of asyncio, and so is its request in the control plane.
    """

    __slots__ = (
        "_overdue",
        "_receive",
        "_send",
        "_task",
        "_timer",
        "_watch",
        "account",
        "began",
        "gateway",
        "gone",
        "id",
        "path",
        "scope",
        "started",
        "streaming",
        "trail",
    )

    def __init__(
        self,
        gateway: Gateway,
        scope: Mapping[str, Any],
        receive: Callable[[], Awaitable[Message]],
        send: Callable[[Message], Awaitable[None]],
        path: Mapping[str, str],
    ) -> None:
        self.gateway = gateway
        self.scope = scope
        self._receive = receive
        self._send = send
        #: Parameters of the route's path.
        self.path = path
        self.id = gateway.next_id()
        self.began = time.perf_counter()
        self.account = Account()
        self.trail = Trail()
        #: The status and headers are out.
        self.started = False
        #: They said that events follow: an error can still be told, as an event.
        self.streaming = False
        self.gone = False
        self._task = asyncio.current_task()
        self._timer: asyncio.TimerHandle | None = None
        #: The body did not come in time.
        self._overdue = False
        self._watch: asyncio.Task[None] | None = None

    # ------------------------------------------------------------ the request

    def header(self, name: bytes) -> str:
        """A header by its lower-case name; empty where it is not there."""
        for key, value in self.scope["headers"]:
            if key == name:
                return str(value, "latin-1")
        return ""

    @property
    def token(self) -> str:
        """The bearer token, or what stands in its place; empty where none was sent."""
        given = self.header(b"authorization")
        kind, _, token = given.partition(" ")
        return token.strip() if kind.lower() == "bearer" else self.header(b"x-api-key")

    @property
    def query(self) -> str:
        """What follows the path's question mark."""
        return str(self.scope["query_string"], "latin-1")

    async def body(self) -> bytes:
        """The whole body; raises `ApiError` 413 or 408. From here on the handler is cancelled when the client goes."""
        # Not `asyncio.timeout`, which costs as much as reading the body does.
        loop, task = asyncio.get_running_loop(), self._task
        self._timer = loop.call_later(self.gateway.body_timeout, self._late)
        try:
            body = await self._read()
        except asyncio.CancelledError:
            # Whoever else cancels at the same moment is not to be kept from it.
            if self._overdue and task is not None and not task.uncancel():
                raise ApiError(408, "the request's body did not arrive in time", code="body_timeout") from None
            raise
        self._timer.cancel()
        self._timer = loop.call_later(LOOK_AFTER, self._look)
        return body

    async def _read(self) -> bytes:
        limit = self.gateway.max_body
        parts: list[bytes] = []
        total = 0
        while True:
            message = await self._receive()
            if message["type"] == "http.disconnect":
                self.gone = True
                raise Gone
            part = message.get("body", b"")
            total += len(part)
            if total <= limit:
                parts.append(part)
            elif total > 2 * limit or int(self.header(b"content-length") or 0) > 2 * limit:
                # Up to here it is read and dropped: a client that still sends would not see the answer.
                raise self._too_large()
            if not message.get("more_body", False):
                break
        if total > limit:
            raise self._too_large()
        return b"".join(parts)

    def _late(self) -> None:
        self._overdue = True
        if self._task is not None:
            self._task.cancel()

    def _too_large(self) -> ApiError:
        message = f"the request's body is larger than {self.gateway.max_body} bytes, the limit of [gateway] max_body"
        return ApiError(413, message, code="body_too_large")

    def _look(self) -> None:
        self._watch = asyncio.get_running_loop().create_task(self._watched())

    async def _watched(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass
        self.leave()

    def leave(self) -> None:
        """Cancel the handler, for whose answer nobody waits any more."""
        self.gone = True
        if self._task is not None:
            self._task.cancel()

    # ------------------------------------------------------------ the answer

    @property
    def headers(self) -> list[tuple[bytes, bytes]]:
        """What every answer says about itself; times as they are known when it starts."""
        own = [(b"x-sage-request-id", self.id.encode())]
        trail = self.trail
        if trail.engine:
            wait, busy = trail.wait, trail.first
            for line in self.gateway.decisions.get(self.id, ()):
                # Of an answer that is there in full, the decision log knows more than the trail of its first piece.
                wait, busy = max(wait, line.wait / SECOND), max(busy, line.actual)
            overhead = max(0.0, time.perf_counter() - self.began - wait - busy)
            own += [
                (b"x-sage-engine", trail.engine.encode()),
                (b"x-sage-queue-ms", b"%.3f" % (wait * 1e3)),
                (b"x-sage-overhead-ms", b"%.3f" % (overhead * 1e3)),
            ]
        return own

    async def reply(self, body: bytes, *, status: int = 200, content_type: bytes = JSON, headers: Headers = ()) -> None:
        """Send a whole answer."""
        length = (b"content-length", b"%d" % len(body))
        self.started = True
        await self._send(
            {
                "type": "http.response.start",
                "status": status,
                "headers": [(b"content-type", content_type), length, *self.headers, *headers],
            }
        )
        await self._send({"type": "http.response.body", "body": body})

    async def answer(self, value: object, *, status: int = 200) -> None:
        """Send a value as JSON."""
        await self.reply(msgspec.json.encode(value), status=status)

    async def begin(self, *, status: int = 200, content_type: bytes = SSE, headers: Headers = ()) -> None:
        """Start an answer that comes in pieces."""
        self.started = True
        self.streaming = content_type is SSE
        # A proxy in between must neither keep nor collect events.
        plain = [(b"content-type", content_type), (b"cache-control", b"no-cache"), (b"x-accel-buffering", b"no")]
        await self._send(
            {"type": "http.response.start", "status": status, "headers": [*plain, *self.headers, *headers]}
        )

    async def write(self, data: bytes) -> None:
        """Send a piece; waits while the client does not read."""
        await self._send({"type": "http.response.body", "body": data, "more_body": True})

    async def end(self) -> None:
        """End an answer that came in pieces."""
        await self._send({"type": "http.response.body", "body": b""})

    # ------------------------------------------------------------ what goes wrong

    async def fail(self, error: Exception) -> None:
        """Tell the client, in whatever way is still open: as an answer, or as the last event of a stream."""
        told = explained(error)
        if told.status >= 500:
            log("request_failed", level=logging.WARNING, request=self.id, error=_described(error, told))
        if not self.started:
            await self.reply(told.body, status=told.status, headers=told.headers)
        elif self.streaming:
            # Never [DONE]: a client must not take half an answer for a whole one.
            await self._send({"type": "http.response.body", "body": b"data: " + told.body + b"\n\n"})

    def close(self) -> None:
        """Stop watching the client."""
        if self._timer is not None:
            self._timer.cancel()
        if self._watch is not None:
            self._watch.cancel()


def _described(error: Exception, told: ApiError) -> str:
    # What SAGE cannot explain is a defect, and whoever mends it needs to know where it happened.
    if told.code == "internal_error":
        return "".join(traceback.format_exception(error))
    return f"{type(error).__name__}: {error}"
