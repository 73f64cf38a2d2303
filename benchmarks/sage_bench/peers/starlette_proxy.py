"""The least a gateway of this kind can be: ``python -m sage_bench.peers.starlette_proxy PORT UPSTREAM``.

Starlette on Hypercorn, aiohttp towards the upstream, bytes passed on; no keys, no queue, no limits, no records.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import aiohttp
from hypercorn.asyncio import serve
from hypercorn.config import Config
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

from sage_bench.gateway.loops import run


async def main(port: int, upstream: str) -> None:
    """Serve until killed."""

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        connector = aiohttp.TCPConnector(limit=0)
        async with aiohttp.ClientSession(connector=connector, auto_decompress=False) as session:
            app.state.session = session
            yield

    async def chat(request: Request) -> Response:
        body = await request.body()
        session: aiohttp.ClientSession = request.app.state.session
        answer = await session.post(
            upstream + request.url.path, data=body, headers={"content-type": "application/json"}
        )
        kind = answer.headers["content-type"]
        if not kind.startswith("text/event-stream"):
            return Response(await answer.read(), status_code=answer.status, media_type=kind)

        async def pieces() -> AsyncIterator[bytes]:
            try:
                async for piece in answer.content.iter_any():
                    yield piece
            finally:
                answer.close()

        return StreamingResponse(pieces(), status_code=answer.status, media_type="text/event-stream")

    app = Starlette(routes=[Route("/v1/chat/completions", chat, methods=["POST"])], lifespan=lifespan)
    config = Config()
    config.bind = [f"127.0.0.1:{port}"]
    config.backlog = 2_048
    config.keep_alive_max_requests = 1_000_000
    config.errorlog = None
    await serve(app, config, shutdown_trigger=asyncio.Event().wait)  # type: ignore[arg-type]  # any awaitable


if __name__ == "__main__":
    run(main(int(sys.argv[1]), sys.argv[2]))
