"""``POST /v1/responses``: OpenAI's newer protocol on top of chats; no conversation is kept, and none is continued."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterator, Mapping
from contextlib import aclosing
from typing import Any

import msgspec

from sage_core import Chunk, ModelError, Request, Token
from sage_gateway import chat, generation
from sage_gateway.app import Route
from sage_gateway.asked import CHAT_TOKENS
from sage_gateway.bodies import fields_of, read
from sage_gateway.callers import caller_of
from sage_gateway.errors import ApiError
from sage_gateway.exchange import Exchange
from sage_gateway.response_events import ResponseWriter
from sage_gateway.response_input import Wanted, refuse_others
from sage_gateway.workflows import PREFIX

PATH = "/v1/responses"


async def create(exchange: Exchange) -> None:
    """Answer with a message, with functions that the client is to call, or with both."""
    gateway, account = exchange.gateway, exchange.account
    body = await exchange.body()
    fields = fields_of(body)
    asked = read(body, Wanted)
    refuse_others(fields)
    if asked.model.startswith(PREFIX):
        message = f"the model {asked.model!r} answers under /v1/chat/completions only"
        raise ApiError(400, message, code="unsupported", param="model")
    spec = gateway.model(asked.model, account)
    messages, limit = asked.messages, asked.max_output_tokens or CHAT_TOKENS
    plain = tuple(map(_plain, messages))
    request = Request(
        id=exchange.id,
        kind="generate",
        model=spec.name,
        caller=caller_of(exchange.scope["headers"], account, gateway.classes, route=PATH, id=exchange.id),
        messages=plain,
        max_tokens=limit,
        temperature=asked.temperature or 0.0,
        schema=asked.schema,
        path=chat.PATH,
        body=asked.chat_body(messages),
    )
    permit = gateway.accounts.admit(account, spec.name, len(body) // generation.BYTES_PER_TOKEN + limit)
    used = generation.Used(permit, sum(len(each["content"]) for each in plain) // generation.BYTES_PER_TOKEN)
    try:
        async with aclosing(gateway.driver.forward(request, spec, trail=exchange.trail)) as stream:
            await _answer(exchange, asked, stream, used)
        used.settle()
    except ModelError as error:
        raise generation.told(error, exchange.trail.engine) from None
    finally:
        used.close()


def _plain(message: Mapping[str, Any]) -> dict[str, str]:
    """A message as the control plane measures it, and as engines know it that write the prompt themselves."""
    role = "system" if message["role"] == "developer" else message["role"]
    called = [each["function"]["name"] + each["function"]["arguments"] for each in message.get("tool_calls", ())]
    return {"role": role, "content": "".join([message["content"] or "", *called])}


async def _answer(
    exchange: Exchange, asked: Wanted, stream: AsyncGenerator[Chunk | Token], used: generation.Used
) -> None:
    writer, finish, cached = ResponseWriter(exchange.id, asked.repeated()), "", 0
    events = _ChatEvents(asked.model)
    begun = False
    async for piece in stream:
        used.count(piece)
        data = b""
        if not begun:
            if isinstance(piece, Chunk) and not piece.content_type.startswith("text/event-stream"):
                await _refused(exchange, piece, stream)
                return
            for name in asked.extras if isinstance(piece, Token) else ():
                raise generation.unsupported(asked.model, name)
            data = writer.begin()
        if isinstance(piece, Chunk):
            cached = piece.cached_tokens or cached
            data += b"".join(_written(writer, delta) for delta in events.feed(piece.data))
            finish = events.finish
        else:
            data, finish = data + (writer.piece(piece.text) if piece.text else b""), piece.finish
        if asked.stream:
            if not begun:
                await exchange.begin()
            if data:
                await exchange.write(data)
        begun = True
    if not finish:
        raise ModelError(asked.model, "its engine ended a stream without saying why")
    if asked.stream:
        await exchange.write(writer.end(finish, used.read, used.written, cached))
        await exchange.end()
    else:
        await exchange.answer(writer.whole(finish, used.read, used.written, cached))


def _written(writer: ResponseWriter, delta: _Delta) -> bytes:
    data = writer.piece(delta.content) if delta.content else b""
    for call in delta.tool_calls or ():
        data += writer.call(call.index, call.id or "", call.function.name or "", call.function.arguments or "")
    return data


async def _refused(exchange: Exchange, chunk: Chunk, stream: AsyncGenerator[Chunk | Token]) -> None:
    """Pass on what an engine says against the request."""
    parts = [chunk.data]
    async for piece in stream:
        assert isinstance(piece, Chunk)
        parts.append(piece.data)
    status = chunk.status if chunk.status >= 400 else 502
    await exchange.reply(b"".join(parts), status=status, content_type=chunk.content_type.encode("latin-1"))


class _ChatEvents:
    """Reads a stream of chat events."""

    def __init__(self, model: str) -> None:
        self._model = model
        self._held = b""
        self.finish = ""

    def feed(self, data: bytes) -> Iterator[_Delta]:
        """What the events say that are whole by now."""
        *lines, self._held = (self._held + data).split(b"\n")
        for line in lines:
            if line.startswith(b"data:") and (told := line[5:].strip()) != b"[DONE]":
                yield from self._read(told)

    def _read(self, data: bytes) -> Iterator[_Delta]:
        try:
            event = _EVENT.decode(data)
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            raise ModelError(self._model, f"its engine wrote an event that cannot be read: {error}") from None
        if event.error is not None:
            raise ModelError(self._model, f"its engine failed: {event.error}")
        for choice in event.choices[:1]:
            self.finish = choice.finish_reason or self.finish
            yield choice.delta


class _Function(msgspec.Struct):
    name: str | None = None
    arguments: str | None = None


class _Call(msgspec.Struct):
    index: int = 0
    id: str | None = None
    function: _Function = msgspec.field(default_factory=_Function)


class _Delta(msgspec.Struct):
    content: str | None = None
    tool_calls: list[_Call] | None = None


class _Choice(msgspec.Struct):
    delta: _Delta = msgspec.field(default_factory=_Delta)
    finish_reason: str | None = None


class _ChatEvent(msgspec.Struct):
    choices: list[_Choice] = []
    error: Any = None


_EVENT = msgspec.json.Decoder(_ChatEvent)

ROUTES = (Route("POST", PATH, create),)
