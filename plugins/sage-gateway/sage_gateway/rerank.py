"""``POST /v1/rerank``, as Cohere, Jina and vLLM answer it."""

from __future__ import annotations

from typing import Annotated, Any

import msgspec

from sage_core import ModelError, Request
from sage_gateway import generation
from sage_gateway.app import Route
from sage_gateway.asked import Name, Whole
from sage_gateway.bodies import fields_of, read
from sage_gateway.callers import caller_of
from sage_gateway.errors import ApiError
from sage_gateway.exchange import Exchange

PATH = "/v1/rerank"
#: Documents of one request.
MOST_DOCUMENTS = 10_000


class Document(msgspec.Struct):
    """A document in the form of an object."""

    text: str


class Rerank(msgspec.Struct, kw_only=True):
    """What is asked for."""

    model: Name
    query: str
    documents: Annotated[list[str | Document], msgspec.Meta(min_length=1)]
    top_n: Whole | None = None
    return_documents: bool | None = None


async def rerank(exchange: Exchange) -> None:
    """Answer with the documents in order of relevance."""
    gateway, account = exchange.gateway, exchange.account
    body = await exchange.body()
    fields_of(body)
    asked = read(body, Rerank)
    spec = gateway.model(asked.model, account)
    if len(asked.documents) > MOST_DOCUMENTS:
        message = f"there are {len(asked.documents)} documents, at most {MOST_DOCUMENTS} are taken"
        raise ApiError(400, message, code="invalid_value", param="documents")
    texts = [each if isinstance(each, str) else each.text for each in asked.documents]
    caller = caller_of(exchange.scope["headers"], account, gateway.classes, route=PATH, id=exchange.id)
    tokens = max(1, len(body) // generation.BYTES_PER_TOKEN)
    used = generation.Used(gateway.accounts.admit(account, spec.name, tokens), tokens)
    try:
        request = Request(id=exchange.id, kind="rerank", model=spec.name, caller=caller, texts=(asked.query, *texts))
        scores = await gateway.driver.ask(request, spec, trail=exchange.trail)
        if len(scores) != len(texts):
            raise ModelError(spec.name, f"its engine gave {len(scores)} scores for {len(texts)} documents")
        used.read = tokens
        results: list[dict[str, Any]] = [
            {"index": index, "relevance_score": score} for index, score in enumerate(map(float, scores))
        ]
        # Equal scores keep the order in which the documents came.
        results.sort(key=lambda result: -result["relevance_score"])
        for result in results if asked.return_documents else ():
            result["document"] = {"text": texts[result["index"]]}
        answer = {"id": exchange.id, "object": "list", "model": asked.model, "results": results[: asked.top_n]}
        await exchange.answer({**answer, "usage": {"prompt_tokens": tokens, "total_tokens": tokens}})
        used.settle()
    except ModelError as error:
        raise generation.told(error, exchange.trail.engine) from None
    finally:
        used.close()


# vLLM and Jina answer the same under /rerank and /v2/rerank.
ROUTES = (Route("POST", PATH, rerank), Route("POST", "/v2/rerank", rerank), Route("POST", "/rerank", rerank))
