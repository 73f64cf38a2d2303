"""`llm.rerank`: how well each text answers a query."""

from __future__ import annotations

from sage_core import Context, operator


@operator("llm.rerank", returns="scores", memo=True, models=("model",))
async def rerank(query: str, documents: list[str], *, model: str, ctx: Context) -> list[float]:
    """One score per document, in their order; larger is more relevant."""
    if not documents:
        return []
    return [float(score) for score in await ctx.client.rerank(model, query, documents)]
