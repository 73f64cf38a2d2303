"""Reading a generated stream to its end."""

from __future__ import annotations

from collections.abc import AsyncIterator

import msgspec

from sage_core import ModelError, Token


class Generation(msgspec.Struct, frozen=True, kw_only=True):
    """A finished answer."""

    text: str
    #: Tokens the model wrote.
    tokens: int


async def read(model: str, stream: AsyncIterator[Token]) -> Generation:
    """Join a stream's pieces; a stream that ends without saying why was cut off and is an error."""
    pieces: list[str] = []
    last = Token()
    async for last in stream:
        pieces.append(last.text)
    if not last.finish:
        raise ModelError(model, "the stream ended before the answer did", "run again; the engine's log says why")
    return Generation(text="".join(pieces), tokens=last.completion_tokens)


def messages(prompt: str, system: str = "") -> list[dict[str, str]]:
    """A chat of one user message, after a system message if there is one."""
    head = [{"role": "system", "content": system}] if system else []
    return [*head, {"role": "user", "content": prompt}]
