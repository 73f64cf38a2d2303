"""``POST /sage/v1/tokenize``: where each text's tokens lie, for runs whose model calls go over the gateway."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

import msgspec

from sage_core import ModelError, Request
from sage_gateway import generation
from sage_gateway.app import Route
from sage_gateway.asked import Name
from sage_gateway.bodies import fields_of, read
from sage_gateway.callers import caller_of
from sage_gateway.embeddings import MOST_TEXTS
from sage_gateway.errors import ApiError
from sage_gateway.exchange import Exchange

PATH = "/sage/v1/tokenize"
#: Letters of one request: each token's place takes several times the room that it has in the text.
MOST_LETTERS = 4 * 2**20


class Tokenize(msgspec.Struct, kw_only=True):
    """What is asked for."""

    model: Name
    input: str | Annotated[list[str], msgspec.Meta(min_length=1, max_length=MOST_TEXTS)]


async def tokenize(exchange: Exchange) -> None:
    """Answer with the first letter of each token, and the one after its last."""
    gateway, account = exchange.gateway, exchange.account
    body = await exchange.body()
    fields_of(body)
    asked = read(body, Tokenize)
    spec = gateway.model(asked.model, account)
    texts = (asked.input,) if isinstance(asked.input, str) else tuple(asked.input)
    letters = sum(map(len, texts))
    if letters > MOST_LETTERS:
        message = f"input has {letters} letters, at most {MOST_LETTERS} are taken"
        raise ApiError(400, message, code="invalid_value", param="input")
    caller = caller_of(exchange.scope["headers"], account, gateway.classes, route=PATH, id=exchange.id)
    request = Request(id=exchange.id, kind="tokenize", model=spec.name, caller=caller, texts=texts)
    # It counts as a request, and its tokens cost nothing: they are only looked up.
    permit = gateway.accounts.admit(account, spec.name, 0)
    try:
        spans: Sequence[Any] = await gateway.driver.ask(request, spec, trail=exchange.trail)
    except ModelError as error:
        permit.refund()
        raise generation.told(error, exchange.trail.engine) from None
    except BaseException:
        permit.refund()
        raise
    permit.settle(0, 0)
    data = [{"index": index, "spans": each} for index, each in enumerate(spans)]
    await exchange.answer({"object": "list", "model": asked.model, "data": data})


ROUTES = (Route("POST", PATH, tokenize),)
