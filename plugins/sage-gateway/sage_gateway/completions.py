"""``POST /v1/completions``."""

from __future__ import annotations

from sage_gateway import generation
from sage_gateway.app import Route
from sage_gateway.asked import Completion, same
from sage_gateway.bodies import fields_of, read
from sage_gateway.errors import ApiError
from sage_gateway.exchange import Exchange

PATH = "/v1/completions"


async def complete(exchange: Exchange) -> None:
    """Continue a text."""
    body = await exchange.body()
    fields = fields_of(body)
    asked = read(body, Completion)
    if not same(asked.prompt):
        raise ApiError(400, "prompt mixes texts and token ids", code="invalid_type", param="prompt")
    await generation.serve(exchange, asked, fields, body, path=PATH, prompt=asked.text)


ROUTES = (Route("POST", PATH, complete),)
