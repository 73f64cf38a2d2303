"""``POST /v1/chat/completions``."""

from __future__ import annotations

from sage_gateway import generation, workflows
from sage_gateway.app import Route
from sage_gateway.asked import Chat
from sage_gateway.bodies import fields_of, read
from sage_gateway.exchange import Exchange
from sage_gateway.media import refuse_remote

PATH = "/v1/chat/completions"


async def chat(exchange: Exchange) -> None:
    """Answer a chat."""
    body = await exchange.body()
    fields = fields_of(body)
    asked = read(body, Chat)
    if asked.model.startswith(workflows.PREFIX):
        await workflows.chat(exchange, asked, fields, PATH)
        return
    if not exchange.gateway.settings.remote_media:
        refuse_remote(asked.messages)
    await generation.serve(exchange, asked, fields, body, path=PATH, messages=asked.plain)


ROUTES = (Route("POST", PATH, chat),)
