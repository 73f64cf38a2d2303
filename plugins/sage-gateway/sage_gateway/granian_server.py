"""Granian in place of Hypercorn, for ``[gateway] server = "granian"``: HTTP in Rust, the rest on our own loop."""

from __future__ import annotations

import asyncio
import importlib
import socket
from typing import TYPE_CHECKING, Any

from sage_core import ConfigError
from sage_core.serving import seconds

if TYPE_CHECKING:
    from sage_gateway.settings import GatewaySettings

#: Bytes of a request's head; Granian takes no less than it reads at a time.
HEAD = 32 * 1024
HELP = "install it with: pip install 'sage-gateway[granian]'; or leave server out, for hypercorn"


def found() -> Any:
    """Granian's server for a loop that runs already; raises `ConfigError` where Granian is not installed."""
    try:
        return importlib.import_module("granian.server.embed")
    except ImportError as error:
        raise ConfigError("[gateway] server", f"granian cannot be imported: {error}", HELP) from None


async def listen(app: Any, sock: socket.socket, stop: asyncio.Event, settings: GatewaySettings) -> None:
    """Serve until `stop` is set; requests that run then have ``[gateway] grace`` left."""
    embed = found()
    http = importlib.import_module("granian.http")
    holder = importlib.import_module("granian.net").SocketHolder
    running: set[asyncio.Task[Any]] = set()

    async def followed(scope: Any, receive: Any, send: Any) -> None:
        task = asyncio.current_task()
        assert task is not None
        running.add(task)
        try:
            await app(scope, receive, send)
        finally:
            running.discard(task)

    class Embedded(embed.Server):  # type: ignore[misc, name-defined]  # an extra, which has no stubs of its own
        def _init_shared_socket(self) -> None:
            # The address is bound already, with what it needs to let go of clients that do not read.
            self._shd = holder(sock.detach(), False, 2_048)

    server = Embedded(
        followed,
        interface="asginl",
        backlog=2_048,
        # Requests wait in the control plane, where they are counted and can be refused.
        backpressure=65_536,
        websockets=False,
        http="1",
        http1_settings=http.HTTP1Settings(
            header_read_timeout=round(seconds(settings.idle) * 1_000), max_buffer_size=HEAD
        ),
        log_enabled=False,
    )
    serving = asyncio.create_task(server.serve(), name="granian")
    stopping = asyncio.create_task(stop.wait(), name="granian's end")
    try:
        await asyncio.wait({serving, stopping}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        stopping.cancel()
        server.stop()
        if running:
            await asyncio.wait(set(running), timeout=seconds(settings.grace))
        for task in set(running):
            task.cancel()
        await serving
