"""`rag.retrieve`: the passages of an index that fit a question best."""

from __future__ import annotations

from typing import Literal

from sage_core import Context, Vector, operator
from sage_rag.index import Index
from sage_rag.records import Passage


@operator("rag.retrieve", returns="passages")
def retrieve(
    vector: Vector,
    query: str,
    index: Index,
    *,
    k: int = 5,
    mode: Literal["dense", "bm25", "hybrid"] = "hybrid",
    rrf: int = 60,
    depth: int = 100,
    min_score: float | None = None,
    path_glob: str | None = None,
    ctx: Context,
) -> list[Passage]:
    """Rank by cosine, by BM25, or by both fused by reciprocal rank; `score` is the cosine in every mode.

    So `min_score` means one thing whatever the mode: passages less similar than that are left out, and none may
    remain. `depth` is how many of each ranking `hybrid` fuses, `rrf` the constant it fuses them with.
    """
    # numpy is needed to search only, and `sage check` imports this module.
    from sage_rag.store import OpenIndex, best, fuse  # noqa: PLC0415

    if k < 1 or depth < 1 or rrf < 0:
        raise ValueError(f"k = {k}, depth = {depth}, rrf = {rrf}: k and depth are at least 1, rrf at least 0")
    opened = ctx.open_once(index, OpenIndex)
    cosines = opened.cosines(vector)
    allowed = opened.matching(path_glob)
    if min_score is not None:
        allowed &= cosines >= min_score
    count = k if mode != "hybrid" else max(k, depth)
    rankings = []
    if mode != "bm25":
        rankings.append(best(cosines, allowed, count))
    if mode != "dense":
        lexical = opened.bm25(query)
        rankings.append(best(lexical, allowed & (lexical > 0), count))
    rows = opened.rows
    return [
        Passage(
            path=rows[i].path,
            start=rows[i].start,
            end=rows[i].end,
            text=rows[i].text,
            score=round(float(cosines[i]), 6),
        )
        for i in fuse(rankings, rrf)[:k]
    ]
