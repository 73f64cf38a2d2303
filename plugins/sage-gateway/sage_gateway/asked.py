"""What chat and completion requests ask for: the fields the gateway looks at; all others only pass through it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Annotated, Any

import msgspec

from sage_gateway.errors import ApiError

Whole = Annotated[int, msgspec.Meta(ge=1)]
Name = Annotated[str, msgspec.Meta(min_length=1)]

#: Tokens that an answer is taken to have where neither the request nor what was seen before says.
CHAT_TOKENS, COMPLETION_TOKENS = 1_024, 16
_ROLES = ("system", "developer", "user", "assistant")

#: One text or several, or token ids of one or of several; `same` says whether a list is one of these.
Texts = str | list[str | int | list[int]]


def same(texts: Texts) -> bool:
    """Whether a list has entries of one type only."""
    return isinstance(texts, str) or len({type(each) for each in texts}) <= 1


class StreamOptions(msgspec.Struct):
    """``stream_options``."""

    include_usage: bool | None = None


class Message(msgspec.Struct):
    """One message of a chat; its content is a text, or parts of which some are texts."""

    role: str
    content: str | list[dict[str, Any]] | None = None

    @property
    def text(self) -> str:
        """Its texts, joined."""
        if isinstance(self.content, list):
            return "".join(part["text"] for part in self.content if isinstance(part.get("text"), str))
        return self.content or ""

    @property
    def plain(self) -> bool:
        """Whether it holds nothing but text."""
        return not isinstance(self.content, list) or all(part.get("type") == "text" for part in self.content)


class Sampling(msgspec.Struct, kw_only=True):
    """What both kinds of requests have."""

    model: Name
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    n: Whole | None = None
    max_tokens: Annotated[int, msgspec.Meta(ge=0)] | None = None
    temperature: float | None = None
    top_p: float | None = None
    stop: str | list[str] | None = None
    seed: int | None = None
    response_format: dict[str, Any] | None = None
    user: str | None = None

    @property
    def wants_usage(self) -> bool:
        """Whether the client asked for the totals of its stream."""
        return bool(self.stream_options and self.stream_options.include_usage)

    @property
    def stops(self) -> tuple[str, ...]:
        """Texts at which the answer ends."""
        if isinstance(self.stop, str):
            return (self.stop,)
        return tuple(self.stop or ())

    @property
    def schema(self) -> dict[str, Any] | None:
        """JSON Schema of the answer, or None."""
        wanted: Mapping[str, Any] = self.response_format or {}
        if wanted.get("type") == "json_object":
            return {"type": "object"}
        if wanted.get("type") != "json_schema":
            return None
        given = wanted.get("json_schema")
        schema = given.get("schema") if isinstance(given, dict) else None
        if not isinstance(schema, dict):
            raise ApiError(400, "response_format.json_schema.schema must be an object", param="response_format")
        return schema


class Chat(Sampling, kw_only=True):
    """``POST /v1/chat/completions``."""

    messages: Annotated[list[Message], msgspec.Meta(min_length=1)]
    max_completion_tokens: Annotated[int, msgspec.Meta(ge=0)] | None = None
    logprobs: bool | None = None
    tools: list[dict[str, Any]] | None = None
    tool_choice: str | dict[str, Any] | None = None

    @property
    def limit(self) -> int:
        """Most tokens of the answer."""
        return self.max_completion_tokens or self.max_tokens or CHAT_TOKENS

    @property
    def most(self) -> int:
        """Most tokens of all its answers."""
        return (self.n or 1) * self.limit

    @property
    def extras(self) -> Iterator[str]:
        """Parameters that only an engine which speaks the protocol itself can serve."""
        if (self.n or 1) > 1:
            yield "n"
        if self.logprobs:
            yield "logprobs"
        if self.tools and self.tool_choice != "none":
            yield "tools"
        if not all(message.plain and message.role in _ROLES for message in self.messages):
            yield "messages"

    @property
    def plain(self) -> tuple[dict[str, str], ...]:
        """The messages as engines know them that write the prompt themselves."""
        return tuple(
            {"role": "system" if message.role == "developer" else message.role, "content": message.text}
            for message in self.messages
        )


class Completion(Sampling, kw_only=True):
    """``POST /v1/completions``."""

    prompt: Texts
    logprobs: int | None = None
    echo: bool | None = None
    suffix: str | None = None
    best_of: int | None = None

    @property
    def limit(self) -> int:
        """Most tokens of the answer."""
        return COMPLETION_TOKENS if self.max_tokens is None else max(1, self.max_tokens)

    @property
    def most(self) -> int:
        """Most tokens of all its answers: several for each prompt, of which the best are shown."""
        several = not isinstance(self.prompt, str) and self.prompt and not isinstance(self.prompt[0], int)
        return max(self.n or 1, self.best_of or 1) * (len(self.prompt) if several else 1) * self.limit

    @property
    def text(self) -> str:
        """The prompts as one text; token ids stand for four letters each."""
        if isinstance(self.prompt, str):
            return self.prompt
        return "".join(
            each if isinstance(each, str) else "    " * (1 if isinstance(each, int) else len(each))
            for each in self.prompt
        )

    @property
    def extras(self) -> Iterator[str]:
        """Parameters that only an engine which speaks the protocol itself can serve."""
        if (self.n or 1) > 1:
            yield "n"
        if self.logprobs is not None:
            yield "logprobs"
        if not isinstance(self.prompt, str):
            yield "prompt"
        for name in ("echo", "suffix"):
            if getattr(self, name):
                yield name
