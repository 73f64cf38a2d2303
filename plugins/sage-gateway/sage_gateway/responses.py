"""``POST /v1/responses``: OpenAI's newer protocol on top of chats; no conversation is kept, and none is continued."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterator, Mapping
from contextlib import aclosing
from typing import Annotated, Any

import msgspec

from sage_core import Chunk, ModelError, Request, Token
from sage_gateway import chat, generation
from sage_gateway.app import Route
from sage_gateway.asked import CHAT_TOKENS, Name, Whole
from sage_gateway.bodies import fields_of, read
from sage_gateway.callers import caller_of
from sage_gateway.errors import ApiError
from sage_gateway.exchange import Exchange
from sage_gateway.response_events import ResponseWriter
from sage_gateway.workflows import PREFIX

PATH = "/v1/responses"
#: Fields of a client's that change nothing here: what they ask for holds anyway, or is no wish.
_HELD: Mapping[str, tuple[object, ...]] = {
    "store": (False, None),
    "background": (False, None),
    "truncation": ("disabled", None),
    "include": ([], None),
    "tools": ([], None),
    "tool_choice": ("auto", "none", None),
    "parallel_tool_calls": (True, False, None),
    "service_tier": ("auto", "default", None),
    "top_logprobs": (0, None),
    "reasoning": (None,),
    "previous_response_id": (None,),
    "conversation": (None,),
    "prompt": (None,),
    "max_tool_calls": (None,),
}
_UNREAD = frozenset(("user", "safety_identifier", "prompt_cache_key", "stream_options", *_HELD))


class TextFormat(msgspec.Struct, kw_only=True):
    """``text.format``."""

    type: str = "text"
    name: str = "answer"
    schema: dict[str, Any] | None = None
    strict: bool | None = None
    description: str | None = None


class TextOptions(msgspec.Struct, kw_only=True):
    """``text``."""

    format: TextFormat | None = None
    verbosity: str | None = None


class Part(msgspec.Struct, kw_only=True):
    """A part of a message."""

    type: str
    text: str = ""


class Item(msgspec.Struct, kw_only=True):
    """A message of the input."""

    type: str = "message"
    role: str = "user"
    content: str | list[Part] = ""


class Wanted(msgspec.Struct, kw_only=True):
    """``POST /v1/responses``."""

    model: Name
    input: str | Annotated[list[Item], msgspec.Meta(min_length=1)]
    instructions: str | None = None
    stream: bool | None = None
    max_output_tokens: Whole | None = None
    temperature: float | None = None
    top_p: float | None = None
    text: TextOptions | None = None
    metadata: dict[str, str] | None = None

    @property
    def format(self) -> TextFormat:
        """What the text is to be."""
        return (self.text and self.text.format) or TextFormat()

    @property
    def messages(self) -> list[dict[str, str]]:
        """The chat that it is."""
        head = [{"role": "system", "content": self.instructions}] if self.instructions else []
        if isinstance(self.input, str):
            return [*head, {"role": "user", "content": self.input}]
        return [*head, *(_message(item) for item in self.input)]


def _message(item: Item) -> dict[str, str]:
    if item.type != "message":
        raise ApiError(400, f"an input item of type {item.type!r} cannot be served", code="unsupported", param="input")
    if isinstance(item.content, str):
        return {"role": item.role, "content": item.content}
    for part in item.content:
        if part.type not in ("input_text", "output_text", "text"):
            message = f"an input part of type {part.type!r} cannot be served"
            raise ApiError(400, message, code="unsupported", param="input")
    return {"role": item.role, "content": "".join(part.text for part in item.content)}


async def create(exchange: Exchange) -> None:
    """Answer with one message."""
    gateway, account = exchange.gateway, exchange.account
    body = await exchange.body()
    fields = fields_of(body)
    asked = read(body, Wanted)
    _refuse_others(fields)
    if asked.model.startswith(PREFIX):
        message = f"the model {asked.model!r} answers under /v1/chat/completions only"
        raise ApiError(400, message, code="unsupported", param="model")
    spec = gateway.model(asked.model, account)
    messages, limit = asked.messages, asked.max_output_tokens or CHAT_TOKENS
    for name in _roles(messages):
        raise ApiError(400, f"role {name!r} is none of system, developer, user, assistant", param="input")
    request = Request(
        id=exchange.id,
        kind="generate",
        model=spec.name,
        caller=caller_of(exchange.scope["headers"], account, gateway.classes, route=PATH, id=exchange.id),
        messages=tuple({**each, "role": each["role"].replace("developer", "system")} for each in messages),
        max_tokens=limit,
        temperature=asked.temperature or 0.0,
        schema=_schema(asked.format),
        path=chat.PATH,
        body=_chat_body(asked, messages),
    )
    permit = gateway.accounts.admit(account, spec.name, len(body) // generation.BYTES_PER_TOKEN + limit)
    used = generation.Used(permit, sum(len(each["content"]) for each in messages) // generation.BYTES_PER_TOKEN)
    try:
        async with aclosing(gateway.driver.forward(request, spec, trail=exchange.trail)) as stream:
            await _answer(exchange, asked, stream, used)
        used.settle()
    except ModelError as error:
        raise generation.told(error, exchange.trail.engine) from None
    finally:
        used.close()


async def _answer(
    exchange: Exchange, asked: Wanted, stream: AsyncGenerator[Chunk | Token], used: generation.Used
) -> None:
    writer, finish, cached = ResponseWriter(exchange.id, _repeated(asked)), "", 0
    deltas = _Deltas(asked.model)
    first = True
    async for piece in stream:
        used.count(piece)
        if isinstance(piece, Chunk):
            if first and not piece.content_type.startswith("text/event-stream"):
                await _refused(exchange, piece, stream)
                return
            cached = piece.cached_tokens or cached
            text = deltas.feed(piece.data)
            finish = deltas.finish
        else:
            text, finish = piece.text, piece.finish
        if asked.stream:
            if first:
                await exchange.begin()
                await exchange.write(writer.begin())
            if text:
                await exchange.write(writer.piece(text))
        else:
            writer.add(text)
        first = False
    if not finish:
        raise ModelError(asked.model, "its engine ended a stream without saying why")
    if asked.stream:
        await exchange.write(writer.end(finish, used.read, used.written, cached))
        await exchange.end()
    else:
        await exchange.answer(writer.whole(finish, used.read, used.written, cached))


async def _refused(exchange: Exchange, chunk: Chunk, stream: AsyncGenerator[Chunk | Token]) -> None:
    """Pass on what an engine says against the request."""
    parts = [chunk.data]
    async for piece in stream:
        assert isinstance(piece, Chunk)
        parts.append(piece.data)
    status = chunk.status if chunk.status >= 400 else 502
    await exchange.reply(b"".join(parts), status=status, content_type=chunk.content_type.encode("latin-1"))


class _Deltas:
    """Reads the texts out of a stream of chat events."""

    def __init__(self, model: str) -> None:
        self._model = model
        self._held = b""
        self.finish = ""

    def feed(self, data: bytes) -> str:
        """The text of the events that are whole by now."""
        *lines, self._held = (self._held + data).split(b"\n")
        return "".join(self._text(line.strip()) for line in lines if line.startswith(b"data:"))

    def _text(self, line: bytes) -> str:
        data = line.removeprefix(b"data:").strip()
        if data == b"[DONE]":
            return ""
        try:
            event = msgspec.json.decode(data, type=_ChatEvent)
        except msgspec.MsgspecError as error:
            raise ModelError(self._model, f"its engine wrote an event that cannot be read: {error}") from None
        if event.error is not None:
            raise ModelError(self._model, f"its engine failed: {event.error}")
        for choice in event.choices:
            self.finish = choice.finish_reason or self.finish
            return choice.delta.content or ""
        return ""


class _Delta(msgspec.Struct):
    content: str | None = None


class _Choice(msgspec.Struct):
    delta: _Delta = msgspec.field(default_factory=_Delta)
    finish_reason: str | None = None


class _ChatEvent(msgspec.Struct):
    choices: list[_Choice] = []
    error: Any = None


def _refuse_others(fields: Mapping[str, msgspec.Raw]) -> None:
    known = {field.name for field in msgspec.structs.fields(Wanted)}
    for name, raw in fields.items():
        if name in _HELD and msgspec.json.decode(raw) not in _HELD[name]:
            raise ApiError(400, f"{name!r} with this value cannot be served", code="unsupported", param=name)
        if name not in known and name not in _UNREAD:
            raise ApiError(400, f"{name!r} is not served", code="unsupported", param=name)


def _roles(messages: list[dict[str, str]]) -> Iterator[str]:
    return (each["role"] for each in messages if each["role"] not in ("system", "developer", "user", "assistant"))


def _schema(format: TextFormat) -> dict[str, Any] | None:
    if format.type == "json_object":
        return {"type": "object"}
    if format.type == "json_schema":
        if format.schema is None:
            raise ApiError(400, "text.format.schema is missing", param="text.format.schema")
        return format.schema
    if format.type != "text":
        raise ApiError(400, f"text.format.type {format.type!r} cannot be served", code="unsupported", param="text")
    return None


def _chat_body(asked: Wanted, messages: list[dict[str, str]]) -> bytes:
    """The chat, for engines that speak the protocol; streamed, so that both kinds of answers come the same way."""
    said: dict[str, Any] = {
        "model": asked.model,
        "messages": messages,
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    given = {"max_tokens": asked.max_output_tokens, "temperature": asked.temperature, "top_p": asked.top_p}
    said |= {name: value for name, value in given.items() if value is not None}
    format = asked.format
    if format.type == "json_object":
        said["response_format"] = {"type": "json_object"}
    elif format.type == "json_schema":
        schema = {"name": format.name, "schema": format.schema, "strict": bool(format.strict)}
        said["response_format"] = {"type": "json_schema", "json_schema": schema}
    return msgspec.json.encode(said)


def _repeated(asked: Wanted) -> dict[str, Any]:
    format = asked.format
    shown: dict[str, Any] = {"type": format.type}
    if format.type == "json_schema":
        shown |= {"name": format.name, "schema": format.schema, "strict": format.strict}
    return {
        "model": asked.model,
        "instructions": asked.instructions,
        "max_output_tokens": asked.max_output_tokens,
        "temperature": asked.temperature,
        "top_p": asked.top_p,
        "text": {"format": shown},
        "metadata": asked.metadata or {},
        "store": False,
        "background": False,
        "previous_response_id": None,
        "parallel_tool_calls": True,
        "tool_choice": "auto",
        "tools": [],
        "truncation": "disabled",
        "reasoning": {"effort": None, "summary": None},
    }


ROUTES = (Route("POST", PATH, create),)
