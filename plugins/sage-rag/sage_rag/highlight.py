"""`rag.highlight`: the sentences of some passages that answer a question."""

from __future__ import annotations

import math
from collections import Counter

import msgspec

from sage_core import Context, operator
from sage_rag.records import Passage, as_passages
from sage_rag.split import sentences
from sage_rag.words import words

#: Words that ask and join rather than name: in technical text "what" may be rarer than the thing asked for.
_FUNCTION_WORDS = frozenset(
    words(
        """
    a about an and any are as at be been being but by can could did do does for from had has have how if in into is
    it its many may me much my of on or our s shall should so some such than that the their them then there these
    they this those to was we were what when where which who whom whose why will with would you your
    """
    )
)


@operator("rag.highlight", returns="passages", memo=True, models=("model",))
async def highlight(
    question: str, passages: list[Passage], *, k: int = 3, model: str | None = None, ctx: Context
) -> list[Passage]:
    """Keep the `k` best sentences as passages of their own, with their place in the document.

    Without `model`, `score` is the share of the question's words a sentence holds, each weighted by how rare it is
    among the sentences, English function words aside; with one, the cosine of their vectors.
    """
    if k < 1:
        raise ValueError(f"k = {k}: at least 1 sentence must be kept")
    found: dict[tuple[str, int, int], Passage] = {}
    for passage in as_passages(passages):
        for start, end in sentences(passage.text):
            place = (passage.path, passage.start + start, passage.start + end)
            # Overlapping chunks hold the same sentence twice.
            found.setdefault(place, Passage(path=place[0], start=place[1], end=place[2], text=passage.text[start:end]))
    candidates = list(found.values())
    if not candidates:
        return []
    texts = [candidate.text for candidate in candidates]
    if model is None:
        scores = _overlap(question, texts)
    else:
        vectors = await ctx.client.embed(model, [question, *texts])
        scores = [float(vectors[0] @ vector) for vector in vectors[1:]]
    scored = [
        msgspec.structs.replace(candidate, score=round(score, 6))
        for candidate, score in zip(candidates, scores, strict=True)
    ]
    return sorted(scored, key=lambda sentence: -sentence.score)[:k]


def _overlap(question: str, texts: list[str]) -> list[float]:
    bags = [set(words(text)) for text in texts]
    holding = Counter(word for bag in bags for word in bag)
    asked = set(words(question))
    # A question of function words alone, or in another language, is compared by all it has.
    asked = asked - _FUNCTION_WORDS or asked
    weights = {word: math.log(1 + len(bags) / (1 + holding[word])) for word in asked}
    total = sum(weights.values())
    # Summed in sorted order: a set's order differs between processes, and so would the last digit.
    return [sum(weights[word] for word in sorted(weights) if word in bag) / total if total else 0.0 for bag in bags]
