"""What `FakeEngine` makes of a client's own JSON: OpenAI's requests read, and its answers written as JSON or events."""

from __future__ import annotations

import base64
from collections.abc import Iterator, Sequence
from typing import Any

import msgspec

from sage_core.common.records import Chunk, Kind, Request, Token

#: What is asked for, by the end of the path.
_KINDS: dict[str, Kind] = {
    "/chat/completions": "generate",
    "/completions": "generate",
    "/embeddings": "embed",
    "/rerank": "rerank",
}
#: Answers to one request at most, as OpenAI bounds them.
MOST_ANSWERS = 128
EVENTS = "text/event-stream; charset=utf-8"
#: Bytes that are neither JSON nor an event.
GARBAGE = b'\x00\xff{"choices": [<html>'


class Asked(msgspec.Struct, kw_only=True):
    """The fields of a request's JSON that the fake looks at; others are let pass."""

    model: str = ""
    messages: list[dict[str, Any]] | None = None
    prompt: str | list[str] = ""
    input: str | list[str] = ""
    query: str = ""
    documents: list[str] = []
    max_tokens: int | None = None
    max_completion_tokens: int | None = None
    stop: str | list[str] | None = None
    seed: int | None = None
    stream: bool = False
    stream_options: dict[str, Any] | None = None
    n: int = 1
    logprobs: bool | int | None = None
    tools: list[dict[str, Any]] = []
    encoding_format: str = "float"
    kind: Kind = "generate"
    chat: bool = False

    @classmethod
    def read(cls, path: str, body: bytes) -> Asked | Chunk:
        """The request, or the answer that says what is wrong with it."""
        kind = next((kind for end, kind in _KINDS.items() if path.endswith(end)), None)
        if kind is None:
            return _refusal(404, f"no such path: {path}")
        try:
            asked = msgspec.json.decode(body, type=cls)
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            return _refusal(400, str(error))
        asked.kind, asked.chat = kind, path.endswith("/chat/completions")
        if asked.chat and not asked.messages:
            return _refusal(400, "messages must be a list of at least one")
        if not 0 < asked.n <= MOST_ANSWERS:
            return _refusal(400, f"n is a number from 1 to {MOST_ANSWERS}")
        return asked

    @property
    def texts(self) -> Sequence[str]:
        """What is to be embedded."""
        return [self.input] if isinstance(self.input, str) else self.input

    @property
    def prompt_text(self) -> str:
        """All that is to be answered, in one text."""
        if not self.chat:
            return self.prompt if isinstance(self.prompt, str) else " ".join(self.prompt)
        return " ".join(_text(message.get("content")) for message in self.messages or ())

    def request(self, request: Request) -> Request:
        """The same as a request that carries its texts itself."""
        stops = [self.stop] if isinstance(self.stop, str) else self.stop or []
        limit = self.max_completion_tokens or self.max_tokens or request.max_tokens
        return msgspec.structs.replace(
            request, prompt=self.prompt_text or "…", max_tokens=limit, stop=tuple(stops), seed=self.seed
        )


def answer_of(asked: Asked, result: Any) -> Chunk:
    """A whole answer: of vectors, of scores, or of the tokens of a text."""
    if asked.kind == "embed":
        rows = [{"object": "embedding", "index": n, "embedding": _row(asked, row)} for n, row in enumerate(result)]
        count = sum(max(1, len(text.split())) for text in asked.texts)
        answer: dict[str, Any] = {"object": "list", "model": asked.model, "data": rows}
        return _whole({**answer, "usage": _usage(count, 0)}, count, 0)
    if asked.kind == "rerank":
        results = [{"index": n, "relevance_score": score} for n, score in enumerate(result)]
        results.sort(key=lambda each: -each["relevance_score"])
        count = sum(len(text.split()) for text in (asked.query, *asked.documents))
        return _whole({"model": asked.model, "results": results, "usage": _usage(count, 0)}, count, 0)
    last: Token = result[-1]
    text = "".join(token.text for token in result)
    choices = [{"index": n, **_said(asked, text), "finish_reason": _finish(asked, last)} for n in range(asked.n)]
    written = last.completion_tokens * asked.n
    answer = {**_head(asked, ""), "choices": choices, "usage": _usage(last.prompt_tokens, written)}
    return _whole(answer, last.prompt_tokens, written)


def pieces_of(asked: Asked, token: Token, *, first: bool) -> Chunk:
    """A token's part of a stream of events; the last one has the usage, if asked for, and the end."""
    events: list[dict[str, Any]] = []
    for n in range(asked.n):
        for said in _deltas(asked, token, first=first):
            events.append({"choices": [{"index": n, "finish_reason": None, **said}]})
        if token.finish:
            said = {"delta": {}} if asked.chat else {"text": ""}
            events.append({"choices": [{"index": n, **said, "finish_reason": _finish(asked, token)}]})
    prompt, written = token.prompt_tokens, token.completion_tokens * asked.n
    if token.finish and (asked.stream_options or {}).get("include_usage"):
        events.append({"choices": [], "usage": _usage(prompt, written)})
    head = _head(asked, ".chunk")
    data = b"".join(b"data: " + msgspec.json.encode({**head, **event}) + b"\n\n" for event in events)
    return Chunk(
        data=data + b"data: [DONE]\n\n" if token.finish else data,
        content_type=EVENTS,
        tokens=0 if token.finish else asked.n,
        prompt_tokens=prompt,
        completion_tokens=written,
    )


def failure_of() -> Chunk:
    """What is no answer to anything."""
    return Chunk(data=GARBAGE)


def _whole(answer: dict[str, Any], prompt: int, written: int) -> Chunk:
    return Chunk(data=msgspec.json.encode(answer), tokens=written, prompt_tokens=prompt, completion_tokens=written)


def _refusal(status: int, message: str) -> Chunk:
    error = {"message": message, "type": "invalid_request_error", "param": None, "code": None}
    return Chunk(status=status, data=msgspec.json.encode({"error": error}))


def _head(asked: Asked, part: str) -> dict[str, Any]:
    name = "chat.completion" + part if asked.chat else "text_completion"
    return {"id": "fake-1", "object": name, "created": 0, "model": asked.model}


def _said(asked: Asked, text: str) -> dict[str, Any]:
    """A choice of a whole answer: as a tool's call where tools are offered."""
    if not asked.chat:
        return {"text": text}
    message: dict[str, Any] = {"role": "assistant", "content": text}
    if asked.tools:
        message["content"] = None
        message["tool_calls"] = [_call(asked, msgspec.json.encode({"text": text}).decode())]
    return {"message": message, **_logprobs(asked, text)}


def _deltas(asked: Asked, token: Token, *, first: bool) -> Iterator[dict[str, Any]]:
    """A choice's events for one token; a tool's arguments are JSON when put together."""
    if not asked.chat:
        if token.text:
            yield {"text": token.text}
        return
    if first:
        yield {"delta": {"role": "assistant", "content": None if asked.tools else ""}}
    if not asked.tools:
        if token.text:
            yield {"delta": {"content": token.text}, **_logprobs(asked, token.text)}
        return
    if first:
        yield {"delta": {"tool_calls": [{"index": 0, **_call(asked, '{"text":"')}]}}
    piece = '"}' if token.finish else msgspec.json.encode(token.text).decode()[1:-1]
    yield {"delta": {"tool_calls": [{"index": 0, "function": {"arguments": piece}}]}}


def _call(asked: Asked, arguments: str) -> dict[str, Any]:
    name = asked.tools[0].get("function", {}).get("name", "")
    return {"id": "call_1", "type": "function", "function": {"name": name, "arguments": arguments}}


def _logprobs(asked: Asked, text: str) -> dict[str, Any]:
    known = {"content": [{"token": text, "logprob": -0.5, "bytes": None, "top_logprobs": []}]}
    return {"logprobs": known} if asked.logprobs else {}


def _finish(asked: Asked, token: Token) -> str:
    return "tool_calls" if asked.tools else token.finish


def _usage(prompt: int, written: int) -> dict[str, int]:
    return {"prompt_tokens": prompt, "completion_tokens": written, "total_tokens": prompt + written}


def _row(asked: Asked, row: Any) -> Any:
    if asked.encoding_format == "base64":
        return base64.b64encode(row.astype("<f4").tobytes()).decode()
    return [float(value) for value in row]


def _text(content: Any) -> str:
    if isinstance(content, list):
        return " ".join(part.get("text", "") for part in content if isinstance(part, dict))
    return content if isinstance(content, str) else ""
