"""What runs inside vLLM's own environment: asks every caller for the key, not only those of paths below /v1."""

from __future__ import annotations

import hmac
import os
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

#: Names the key in the environment of the server.
KEY = "SAGE_VLLM_KEY"

Scope = MutableMapping[str, Any]
Send = Callable[[dict[str, Any]], Awaitable[None]]
App = Callable[[Scope, Any, Send], Awaitable[None]]


class Guard:
    """ASGI middleware, named to vLLM by ``--middleware``; without a key in the environment nobody is let in."""

    def __init__(self, app: App) -> None:
        self._app = app
        key = os.environ.get(KEY, "")
        self._wanted = f"Bearer {key}".encode() if key else b""

    async def __call__(self, scope: Scope, receive: Any, send: Send) -> None:
        if scope["type"] == "lifespan" or self._admits(scope):
            await self._app(scope, receive, send)
            return
        body = b'{"error": {"message": "this server is not for you", "type": "invalid_request_error"}}'
        headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]
        await send({"type": "http.response.start", "status": 401, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    def _admits(self, scope: Scope) -> bool:
        given = next((value for name, value in scope["headers"] if name == b"authorization"), b"")
        return bool(self._wanted) and hmac.compare_digest(given, self._wanted)
