"""`rag.chunk`: cuts a text into overlapping pieces that know their place."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Literal

from sage_core import Context, operator
from sage_rag.records import Chunk
from sage_rag.split import split
from sage_rag.tokens import spans


@operator("rag.chunk", models=("model",))
async def chunk(
    text: str,
    *,
    size: int = 256,
    overlap: int = 32,
    by: Literal["tokens", "sentence", "heading"] = "tokens",
    model: str | None = None,
    ctx: Context,
) -> AsyncIterator[Chunk]:
    """Cut near every `size` tokens, where a paragraph or sentence ends if one does; nothing but white space is lost.

    Tokens are those of `model`, or an estimate without one. ``sentence`` keeps sentences whole where they fit;
    ``heading`` also starts anew at every Markdown heading.
    """
    tokens = spans(text) if model is None else (await ctx.client.tokenize(model, [text]))[0]
    for start, end in split(text, tokens, size, overlap, by):
        yield Chunk(text=text[start:end], start=start, end=end)
