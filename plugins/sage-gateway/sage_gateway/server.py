"""Hypercorn, or Granian, with settings that bound what a client can hold, for `sage serve` and for tests."""

from __future__ import annotations

import asyncio
import socket
from typing import Any

from hypercorn.asyncio import serve as hypercorn_serve
from hypercorn.config import Config

from sage_core.serving import seconds
from sage_gateway import granian_server
from sage_gateway.settings import GatewaySettings

#: Bytes of a request's head.
HEAD = 32 * 1024


def server_config(settings: GatewaySettings, *, fd: int) -> Config:
    """Settings of the server; there is no read timeout, as a client waits in silence for its answer."""
    config = Config()
    config.bind = [f"fd://{fd}"]
    config.backlog = 2_048
    config.h11_max_incomplete_size = HEAD
    config.h2_max_header_list_size = HEAD
    config.keep_alive_timeout = seconds(settings.idle)
    config.keep_alive_max_requests = 1_000_000
    config.graceful_timeout = seconds(settings.grace)
    config.include_server_header = False
    # Standard output and error are the command's.
    config.errorlog = None
    config.accesslog = None
    return config


def bound(host: str, port: int, *, unread: float = 0.0) -> socket.socket:
    """A listening address; port 0 is any that is free.

    Args:
        unread: seconds after which the system closes a connection whose client takes nothing of what was sent to it.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_STREAM)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if unread and hasattr(socket, "TCP_USER_TIMEOUT"):
        # What waits in a connection cannot be dropped from within the application: only this ends such a connection.
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, round(unread * 1_000))
    sock.bind((host, port))
    sock.setblocking(False)
    return sock


async def listen(app: Any, sock: socket.socket, stop: asyncio.Event, settings: GatewaySettings) -> None:
    """Serve until `stop` is set; requests that run then have ``[gateway] grace`` left."""

    if settings.server == "granian":
        await granian_server.listen(app, sock, stop, settings)
        return

    async def told() -> None:
        await stop.wait()

    await hypercorn_serve(app, server_config(settings, fd=sock.detach()), shutdown_trigger=told)
