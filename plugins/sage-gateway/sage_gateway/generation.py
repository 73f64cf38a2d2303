"""From a request for text to its answer: through the control plane, and out as the engine wrote it or as rendered."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing

import msgspec

from sage_core import Chunk, InvalidRequest, ModelError, ModelSpec, Request, Token
from sage_gateway.accounts import Permit
from sage_gateway.asked import Chat, Completion
from sage_gateway.bodies import Fields
from sage_gateway.callers import caller_of
from sage_gateway.errors import ApiError
from sage_gateway.events import EventFilter
from sage_gateway.exchange import Exchange
from sage_gateway.gateway import Gateway
from sage_gateway.render import Renderer

#: No token of any vocabulary in use has more bytes: what has more bytes than this for each token does not fit.
BYTES_IN_TOKEN = 128
#: Bytes for each token, where tokens are only booked.
BYTES_PER_TOKEN = 4
_USAGE = msgspec.Raw(b'{"include_usage":true}')


async def serve(
    exchange: Exchange,
    asked: Chat | Completion,
    fields: Fields,
    body: bytes,
    *,
    path: str,
    messages: tuple[dict[str, str], ...] = (),
    prompt: str = "",
) -> None:
    """Ask a model for a text: all that the client wrote goes along, and what its engine needs that takes no JSON."""
    gateway, account = exchange.gateway, exchange.account
    spec = gateway.model(asked.model, account)
    request = Request(
        id=exchange.id,
        kind="generate",
        model=spec.name,
        caller=caller_of(exchange.scope["headers"], account, gateway.classes, route=path, id=exchange.id),
        messages=messages,
        prompt=prompt,
        max_tokens=asked.limit,
        temperature=asked.temperature or 0.0,
        stop=asked.stops,
        seed=asked.seed,
        schema=asked.schema,
        path=path,
        body=body_of(asked, fields, body),
        whole=not asked.stream,
    )
    permit = gateway.accounts.admit(account, spec.name, len(body) // BYTES_PER_TOKEN + asked.most)
    await answer(exchange, asked, request, spec, permit)


async def answer(
    exchange: Exchange, asked: Chat | Completion, request: Request, spec: ModelSpec, permit: Permit
) -> None:
    """Send the request and pass its answer on; the permit is settled or refunded, whatever happens."""
    gateway = exchange.gateway
    size = len(request.prompt) + sum(len(message["content"]) for message in request.messages)
    used = Used(permit, size // BYTES_PER_TOKEN)
    try:
        _fits(gateway, request.model, size)
        async with aclosing(gateway.driver.forward(request, spec, trail=exchange.trail)) as stream:
            first = await anext(stream, None)
            if first is None:
                raise ModelError(spec.name, "its engine answered nothing")
            if isinstance(first, Token):
                await _rendered(exchange, asked, first, stream, used)
            elif first.content_type.startswith("text/event-stream"):
                await _streamed(exchange, asked, first, stream, used)
            else:
                await _passed(exchange, first, stream, used)
        used.settle()
    except ModelError as error:
        raise told(error, exchange.trail.engine) from None
    finally:
        used.close()


async def forwarded(exchange: Exchange, request: Request, spec: ModelSpec, permit: Permit, *, param: str) -> None:
    """Pass a request on that only an engine which speaks the protocol itself can answer; `param` is why."""
    used = Used(permit, len(request.body) // BYTES_PER_TOKEN)
    try:
        async with aclosing(exchange.gateway.driver.forward(request, spec, trail=exchange.trail)) as stream:
            first = await anext(stream, None)
            if not isinstance(first, Chunk):
                raise ModelError(spec.name, "its engine answered nothing")
            await _passed(exchange, first, stream, used)
        used.settle()
    except ModelError as error:
        if isinstance(error, InvalidRequest) and error.code == "unsupported":
            raise unsupported(spec.name, param) from None
        raise told(error, exchange.trail.engine) from None
    finally:
        used.close()


def unsupported(model: str, param: str) -> ApiError:
    """That the engines of a model cannot do what a parameter asks for."""
    return ApiError(400, f"the engines of model {model!r} cannot serve {param!r}", code="unsupported", param=param)


def body_of(asked: Chat | Completion, fields: Fields, body: bytes) -> bytes:
    """The client's body, as it was sent, where its stream brings totals anyway; else with the wish for them."""
    if not asked.stream or asked.wants_usage:
        return body
    given = fields.get("stream_options")
    options = (msgspec.json.decode(given, type=Fields | None) if given is not None else None) or {}
    wished = msgspec.json.encode({**options, "include_usage": True}) if options else _USAGE
    return msgspec.json.encode({**fields, "stream_options": msgspec.Raw(bytes(wished))})


def told(error: ModelError, engine: str) -> Exception:
    """Whose fault a model's error is: nothing could be opened, the engine broke, or the request cannot be served."""
    if not engine:
        return ApiError(503, str(error), code="no_engine")
    if isinstance(error, InvalidRequest):
        return ApiError(400, str(error), code=error.code)
    return ApiError(502, str(error), code="engine_failed")


def _fits(gateway: Gateway, model: str, size: int) -> None:
    info = gateway.info(model)
    if info is not None and size > info.capacity.context * BYTES_IN_TOKEN:
        context = info.capacity.context
        message = f"the prompt has {size} letters, more than the model's context of {context} tokens can hold"
        raise ApiError(400, message, code="context_length_exceeded", param="messages")


class Used:
    """What a request has used of its permit so far."""

    def __init__(self, permit: Permit, prompt: int) -> None:
        self._permit = permit
        self._open = True
        self._prompt = prompt
        self.read = 0
        self.written = 0

    def count(self, piece: Chunk | Token) -> None:
        """Take a piece's own figures, or count it."""
        if piece.prompt_tokens or piece.completion_tokens:
            self.read, self.written = piece.prompt_tokens, piece.completion_tokens
        else:
            self.written += piece.tokens if isinstance(piece, Chunk) else 1

    def settle(self) -> None:
        """Charge what was used."""
        if self._open:
            self._open = False
            if self.written or self.read:
                self._permit.settle(self.read or self._prompt, self.written)
            else:
                self._permit.refund()

    # Whoever leaves in the middle of an answer has used what was written; before it, nothing.
    close = settle


async def _rendered(
    exchange: Exchange,
    asked: Chat | Completion,
    token: Token,
    stream: AsyncGenerator[Chunk | Token],
    used: Used,
) -> None:
    for name in asked.extras:
        raise unsupported(asked.model, name)
    renderer = Renderer(exchange.id, asked.model, chat=isinstance(asked, Chat))
    if asked.stream:
        await exchange.begin()
        data = renderer.begin() + _written(renderer, token, asked, used)
        await exchange.write(data)
        async for piece in stream:
            assert isinstance(piece, Token)
            await exchange.write(_written(renderer, piece, asked, used))
        await exchange.end()
        return
    texts = [token.text]
    last = token
    used.count(token)
    async for piece in stream:
        assert isinstance(piece, Token)
        texts.append(piece.text)
        used.count(piece)
        last = piece
    await exchange.reply(renderer.whole("".join(texts), last))


def _written(renderer: Renderer, token: Token, asked: Chat | Completion, used: Used) -> bytes:
    used.count(token)
    text = renderer.piece(token.text) if token.text else b""
    return text + renderer.end(token, with_usage=asked.wants_usage) if token.finish else text


async def _streamed(
    exchange: Exchange,
    asked: Chat | Completion,
    chunk: Chunk,
    stream: AsyncGenerator[Chunk | Token],
    used: Used,
) -> None:
    through = EventFilter(drop_usage=not asked.wants_usage)
    await exchange.begin(status=chunk.status)
    piece: Chunk | Token | None = chunk
    while piece is not None:
        assert isinstance(piece, Chunk)
        used.count(piece)
        data = through.feed(piece.data)
        if data:
            await exchange.write(data)
        piece = await anext(stream, None)
    if through.half:
        raise ModelError(asked.model, "its engine ended a stream in the middle of an event")
    await exchange.end()


async def _passed(exchange: Exchange, chunk: Chunk, stream: AsyncGenerator[Chunk | Token], used: Used) -> None:
    parts = [chunk.data]
    used.count(chunk)
    async for piece in stream:
        assert isinstance(piece, Chunk)
        parts.append(piece.data)
        used.count(piece)
    await exchange.reply(b"".join(parts), status=chunk.status, content_type=chunk.content_type.encode("latin-1"))
