"""What ``POST /v1/responses`` takes, and the chat that it is."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Any

import msgspec

from sage_gateway.asked import Name, Whole
from sage_gateway.bodies import Fields
from sage_gateway.errors import ApiError

ROLES = ("system", "developer", "user", "assistant")
#: What a client whose conversation is not kept here can do.
_RESEND = "no conversation is kept here: send the earlier items, the output of earlier responses among them, as input"
#: Fields of a client's that change nothing here: what they ask for holds anyway, or is no wish; and the way out.
_HELD: Mapping[str, tuple[tuple[object, ...], str]] = {
    "store": ((False, None), _RESEND),
    "previous_response_id": ((None,), _RESEND),
    "conversation": ((None,), _RESEND),
    "background": ((False, None), "leave it out, and make a batch of what may take long: /v1/batches"),
    "prompt": ((None,), "no prompts are kept here: send instructions and input"),
    "truncation": (("disabled", None), ""),
    "include": (([], None), ""),
    "service_tier": (("auto", "default", None), "a header says the class: x-sage-class"),
    "top_logprobs": ((0, None), ""),
    "reasoning": ((None,), ""),
    "max_tool_calls": ((None,), ""),
}
_UNREAD = frozenset(("user", "safety_identifier", "prompt_cache_key", "prompt_cache_retention", "stream_options"))


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
    """A part of a message, or of what a function gave."""

    type: str
    text: str = ""


class Item(msgspec.Struct, kw_only=True):
    """A message of the input, a function that was to be called, or what it gave."""

    type: str = "message"
    role: str = "user"
    content: str | list[Part] = ""
    call_id: str = ""
    name: str = ""
    arguments: str = ""
    output: str | list[Part] = ""


class Tool(msgspec.Struct, kw_only=True):
    """A function that the model may ask for; the client calls it."""

    type: str
    name: str = ""
    description: str | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = None


class Chosen(msgspec.Struct, kw_only=True):
    """``tool_choice`` of one function."""

    type: str
    name: str = ""


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
    tools: list[Tool] | None = None
    tool_choice: str | Chosen | None = None
    parallel_tool_calls: bool | None = None

    @property
    def format(self) -> TextFormat:
        """What the text is to be."""
        return (self.text and self.text.format) or TextFormat()

    @property
    def schema(self) -> dict[str, Any] | None:
        """JSON Schema of the text, or None; raises `ApiError` 400."""
        format = self.format
        if format.type == "json_object":
            return {"type": "object"}
        if format.type == "json_schema":
            if format.schema is None:
                raise ApiError(400, "text.format.schema is missing", param="text.format.schema")
            return format.schema
        if format.type != "text":
            raise ApiError(400, f"text.format.type {format.type!r} cannot be served", code="unsupported", param="text")
        return None

    @property
    def messages(self) -> list[dict[str, Any]]:
        """The chat that it is; raises `ApiError` 400."""
        chat: list[dict[str, Any]] = [{"role": "system", "content": self.instructions}] if self.instructions else []
        if isinstance(self.input, str):
            return [*chat, {"role": "user", "content": self.input}]
        for item in self.input:
            message = _message(item)
            if item.type == "function_call" and chat and chat[-1]["role"] == "assistant":
                # What an assistant says and asks for in one answer is one message of a chat.
                chat[-1] = {**chat[-1], "tool_calls": [*chat[-1].get("tool_calls", ()), *message["tool_calls"]]}
            else:
                chat.append(message)
        return chat

    @property
    def extras(self) -> Iterator[str]:
        """Parameters that only an engine which speaks the protocol itself can serve."""
        if self.tools and self.tool_choice != "none":
            yield "tools"
        if not isinstance(self.input, str) and any(item.type != "message" for item in self.input):
            yield "input"

    def chat_body(self, messages: Sequence[Mapping[str, Any]]) -> bytes:
        """The chat, for engines that speak the protocol; streamed, so that both kinds of answers come the same way."""
        said: dict[str, Any] = {
            "model": self.model,
            "messages": messages,
            "stream": True,
            "stream_options": {"include_usage": True},
        }
        given = {"max_tokens": self.max_output_tokens, "temperature": self.temperature, "top_p": self.top_p}
        format = self.format
        if format.type == "json_object":
            given["response_format"] = {"type": "json_object"}  # type: ignore[assignment]
        elif format.type == "json_schema":
            schema = {"name": format.name, "schema": format.schema, "strict": bool(format.strict)}
            given["response_format"] = {"type": "json_schema", "json_schema": schema}  # type: ignore[assignment]
        return msgspec.json.encode({**said, **_present(given), **self._chat_tools()})

    def _chat_tools(self) -> dict[str, Any]:
        for tool in self.tools or ():
            if tool.type != "function" or not tool.name:
                problem = f"a tool of type {tool.type!r} cannot be served" if tool.name else "a tool has no name"
                message = f"{problem}: only functions can, which the client calls itself"
                raise ApiError(400, message, code="unsupported", param="tools")
        choice: Any = self.tool_choice
        if isinstance(choice, Chosen):
            if choice.type != "function":
                message = f"tool_choice of type {choice.type!r} cannot be served"
                raise ApiError(400, message, code="unsupported", param="tool_choice")
            if choice.name not in (known := [tool.name for tool in self.tools or ()]):
                message = f"tool_choice {choice.name!r} is none of the tools: {', '.join(known) or 'there are none'}"
                raise ApiError(400, message, param="tool_choice")
            choice = {"type": "function", "function": {"name": choice.name}}
        elif choice not in (None, "auto", "none", "required"):
            raise ApiError(400, f"tool_choice {choice!r} is none of auto, none, required", param="tool_choice")
        if not self.tools:
            if choice not in (None, "auto", "none"):
                raise ApiError(400, "tool_choice asks for a tool, and there are none", param="tool_choice")
            return {}
        tools = []
        for tool in self.tools:
            about = {"description": tool.description, "parameters": tool.parameters, "strict": tool.strict}
            tools.append({"type": "function", "function": {"name": tool.name, **_present(about)}})
        return _present({"tools": tools, "tool_choice": choice, "parallel_tool_calls": self.parallel_tool_calls})

    def repeated(self) -> dict[str, Any]:
        """What the response says again."""
        format = self.format
        shown: dict[str, Any] = {"type": format.type}
        if format.type == "json_schema":
            shown |= {"name": format.name, "schema": format.schema, "strict": format.strict}
        return {
            "model": self.model,
            "instructions": self.instructions,
            "max_output_tokens": self.max_output_tokens,
            "temperature": self.temperature,
            "top_p": self.top_p,
            "text": {"format": shown},
            "metadata": self.metadata or {},
            "store": False,
            "background": False,
            "previous_response_id": None,
            "parallel_tool_calls": self.parallel_tool_calls is not False,
            "tool_choice": self.tool_choice or "auto",
            "tools": self.tools or [],
            "truncation": "disabled",
            "reasoning": {"effort": None, "summary": None},
        }


def refuse_others(fields: Fields) -> None:
    """Raise `ApiError` 400 for a field that asks for what cannot be done."""
    known = {field.name for field in msgspec.structs.fields(Wanted)}
    for name, raw in fields.items():
        if name in _HELD:
            values, way_out = _HELD[name]
            if msgspec.json.decode(raw) not in values:
                message = f"{name!r} with this value cannot be served" + (f": {way_out}" if way_out else "")
                raise ApiError(400, message, code="unsupported", param=name)
        elif name not in known and name not in _UNREAD:
            raise ApiError(400, f"{name!r} is not served", code="unsupported", param=name)


def _message(item: Item) -> dict[str, Any]:
    if item.type == "message":
        if item.role not in ROLES:
            raise ApiError(400, f"role {item.role!r} is none of {', '.join(ROLES)}", param="input")
        return {"role": item.role, "content": _text(item.content)}
    if item.type not in ("function_call", "function_call_output"):
        raise ApiError(400, f"an input item of type {item.type!r} cannot be served", code="unsupported", param="input")
    if not item.call_id:
        raise ApiError(400, f"an input item of type {item.type!r} has no call_id", param="input")
    if item.type == "function_call_output":
        return {"role": "tool", "tool_call_id": item.call_id, "content": _text(item.output)}
    if not item.name:
        raise ApiError(400, "an input item of type 'function_call' has no name", param="input")
    function = {"name": item.name, "arguments": item.arguments}
    call = {"id": item.call_id, "type": "function", "function": function}
    return {"role": "assistant", "content": None, "tool_calls": [call]}


def _text(content: str | list[Part]) -> str:
    if isinstance(content, str):
        return content
    for part in content:
        if part.type not in ("input_text", "output_text", "text"):
            message = f"an input part of type {part.type!r} cannot be served"
            raise ApiError(400, message, code="unsupported", param="input")
    return "".join(part.text for part in content)


def _present(given: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in given.items() if value is not None}
