"""`rag.rerank`: puts passages in the order a reranking model gives them."""

from __future__ import annotations

import msgspec

from sage_core import Context, operator
from sage_rag.records import Passage, as_passages


@operator("rag.rerank", returns="passages", memo=True, models=("model",))
async def rerank(query: str, passages: list[Passage], *, model: str, k: int = 5, ctx: Context) -> list[Passage]:
    """Keep the `k` passages the model scores highest; `score` is the model's, on the model's own scale."""
    if k < 1:
        raise ValueError(f"k = {k}: at least 1 passage must be kept")
    given = as_passages(passages)
    if not given:
        return []
    scores = await ctx.client.rerank(model, query, [passage.text for passage in given])
    scored = [
        msgspec.structs.replace(passage, score=round(float(score), 6))
        for passage, score in zip(given, scores, strict=True)
    ]
    # The sort is stable: equal scores keep the order they came in.
    return sorted(scored, key=lambda passage: -passage.score)[:k]
