"""``POST /v1/completions``."""

from __future__ import annotations

from sage_core import Request
from sage_gateway import generation
from sage_gateway.app import Route
from sage_gateway.asked import Completion, same
from sage_gateway.bodies import fields_of, read
from sage_gateway.callers import caller_of
from sage_gateway.errors import ApiError
from sage_gateway.exchange import Exchange

PATH = "/v1/completions"


async def complete(exchange: Exchange) -> None:
    """Continue a text."""
    gateway, account = exchange.gateway, exchange.account
    body = await exchange.body()
    fields = fields_of(body)
    asked = read(body, Completion)
    spec = gateway.model(asked.model, account)
    if not same(asked.prompt):
        raise ApiError(400, "prompt mixes texts and token ids", code="invalid_type", param="prompt")
    caller = caller_of(exchange.scope["headers"], account, gateway.classes, route=PATH, id=exchange.id)
    request = Request(
        id=exchange.id,
        kind="generate",
        model=spec.name,
        caller=caller,
        prompt=asked.text,
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


ROUTES = (Route("POST", PATH, complete),)
