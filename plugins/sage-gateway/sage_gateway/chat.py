"""``POST /v1/chat/completions``."""

from __future__ import annotations

from sage_core import Request
from sage_gateway import generation, workflows
from sage_gateway.app import Route
from sage_gateway.asked import Chat
from sage_gateway.bodies import fields_of, read
from sage_gateway.callers import caller_of
from sage_gateway.exchange import Exchange
from sage_gateway.media import refuse_remote

PATH = "/v1/chat/completions"


async def chat(exchange: Exchange) -> None:
    """Answer a chat."""
    gateway, account = exchange.gateway, exchange.account
    body = await exchange.body()
    fields = fields_of(body)
    asked = read(body, Chat)
    if asked.model.startswith(workflows.PREFIX):
        await workflows.chat(exchange, asked, fields, PATH)
        return
    spec = gateway.model(asked.model, account)
    if not gateway.settings.remote_media:
        refuse_remote(asked.messages)
    caller = caller_of(exchange.scope["headers"], account, gateway.classes, route=PATH, id=exchange.id)
    request = Request(
        id=exchange.id,
        kind="generate",
        model=spec.name,
        caller=caller,
        messages=asked.plain,
        max_tokens=asked.limit,
        temperature=asked.temperature or 0.0,
        stop=asked.stops,
        seed=asked.seed,
        schema=asked.schema,
        path=PATH,
        body=generation.body_of(asked, fields, body),
    )
    permit = gateway.accounts.admit(account, spec.name, len(body) // generation.BYTES_PER_TOKEN + asked.most)
    await generation.answer(exchange, asked, request, spec, permit)


ROUTES = (Route("POST", PATH, chat),)
