"""`llm.embed`: texts become vectors."""

from __future__ import annotations

from sage_core import Batch, Context, Vectors, operator


@operator("llm.embed", returns="vector", memo=True, models=("model",))
async def embed(text: Batch[str], *, model: str, prefix: str = "", ctx: Context) -> Vectors:
    """One L2-normalised vector per text; `prefix` is put before each, as some models want (``query: ``)."""
    return await ctx.client.embed(model, [prefix + one for one in text] if prefix else list(text))
