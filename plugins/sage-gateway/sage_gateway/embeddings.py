"""``POST /v1/embeddings``: texts are batched with those of others; token ids go to an engine that reads them."""

from __future__ import annotations

import base64
from typing import Any, Literal

import msgspec

from sage_core import ModelError, Request
from sage_gateway import generation
from sage_gateway.app import Route
from sage_gateway.asked import Name, Texts, Whole, same
from sage_gateway.bodies import fields_of, read
from sage_gateway.callers import caller_of
from sage_gateway.errors import ApiError
from sage_gateway.exchange import Exchange

PATH = "/v1/embeddings"
#: Texts of one request, as OpenAI bounds them.
MOST_TEXTS = 2_048


class Embedding(msgspec.Struct, kw_only=True):
    """What is asked for."""

    model: Name
    input: Texts
    encoding_format: Literal["float", "base64"] | None = None
    dimensions: Whole | None = None
    user: str | None = None

    @property
    def texts(self) -> tuple[str, ...] | None:
        """What is to be embedded; None for token ids."""
        if isinstance(self.input, str):
            return (self.input,)
        texts = tuple(each for each in self.input if isinstance(each, str))
        return texts if len(texts) == len(self.input) else None


class EmbeddingOut(msgspec.Struct):
    """One vector, as numbers or as base64 of little-endian float32."""

    embedding: str | list[float]
    index: int
    object: str = "embedding"


async def embed(exchange: Exchange) -> None:
    """Answer with one vector for each text."""
    gateway, account = exchange.gateway, exchange.account
    body = await exchange.body()
    fields = fields_of(body)
    asked = read(body, Embedding)
    spec = gateway.model(asked.model, account)
    texts = asked.texts
    _bounded(asked)
    caller = caller_of(exchange.scope["headers"], account, gateway.classes, route=PATH, id=exchange.id)
    if "messages" in fields:
        # Some servers would take these in place of the input, with what they point at.
        raise generation.unsupported(spec.name, "messages")
    tokens = max(1, len(body) // generation.BYTES_PER_TOKEN)
    permit = gateway.accounts.admit(account, spec.name, tokens)
    if texts is None or asked.dimensions is not None:
        param = "input" if texts is None else "dimensions"
        request = Request(id=exchange.id, kind="embed", model=spec.name, caller=caller, path=PATH, body=body)
        await generation.forwarded(exchange, request, spec, permit, param=param)
        return
    used = generation.Used(permit, tokens)
    try:
        request = Request(id=exchange.id, kind="embed", model=spec.name, caller=caller, texts=texts)
        vectors = await gateway.driver.ask(request, spec, trail=exchange.trail)
        # Whole batches are counted, not the rows of one request.
        used.read = count = sum(max(1, len(text) // generation.BYTES_PER_TOKEN) for text in texts)
        base = asked.encoding_format == "base64"
        data = [EmbeddingOut(_base64(row) if base else row.tolist(), index) for index, row in enumerate(vectors)]
        usage = {"prompt_tokens": count, "total_tokens": count}
        await exchange.answer({"object": "list", "data": data, "model": asked.model, "usage": usage})
        used.settle()
    except ModelError as error:
        raise generation.told(error, exchange.trail.engine) from None
    finally:
        used.close()


def _bounded(asked: Embedding) -> None:
    if not asked.input:
        raise ApiError(400, "input is empty", code="invalid_value", param="input")
    if not same(asked.input):
        raise ApiError(400, "input mixes texts and token ids", code="invalid_type", param="input")
    if not isinstance(asked.input, str):
        if len(asked.input) > MOST_TEXTS and not isinstance(asked.input[0], int):
            message = f"input has {len(asked.input)} entries, at most {MOST_TEXTS} are taken"
            raise ApiError(400, message, code="invalid_value", param="input")
        if any(not each and each != 0 for each in asked.input):
            raise ApiError(400, "input has an empty entry", code="invalid_value", param="input")


def _base64(row: Any) -> str:
    return base64.b64encode(row.astype("<f4", copy=False).tobytes()).decode()


ROUTES = (Route("POST", PATH, embed),)
