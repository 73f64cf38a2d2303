"""Hypercorn with settings that bound what a client can hold, for `sage serve` and for tests."""

from __future__ import annotations

import asyncio
import socket
from typing import Any

from hypercorn.asyncio import serve as hypercorn_serve
from hypercorn.config import Config

#: Seconds a connection may stay without a complete request head, at its start and between requests.
IDLE = 20
#: Bytes of a request's head.
HEAD = 32 * 1024


def server_config(*, fd: int, grace: float) -> Config:
    """Settings of the server; there is no read timeout, as a client waits in silence for its answer."""
    config = Config()
    config.bind = [f"fd://{fd}"]
    config.backlog = 2_048
    config.h11_max_incomplete_size = HEAD
    config.h2_max_header_list_size = HEAD
    config.keep_alive_timeout = IDLE
    config.keep_alive_max_requests = 1_000_000
    config.graceful_timeout = grace
    config.include_server_header = False
    # Standard output and error are the command's.
    config.errorlog = None
    config.accesslog = None
    return config


def bound(host: str, port: int) -> socket.socket:
    """A listening address; port 0 is any that is free."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_STREAM)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    sock.bind((host, port))
    sock.setblocking(False)
    return sock


async def listen(app: Any, sock: socket.socket, stop: asyncio.Event, *, grace: float) -> None:
    """Serve until `stop` is set; requests that run then have `grace` seconds left."""

    async def told() -> None:
        await stop.wait()

    await hypercorn_serve(app, server_config(fd=sock.detach(), grace=grace), shutdown_trigger=told)
