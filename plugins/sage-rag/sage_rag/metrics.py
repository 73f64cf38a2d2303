"""Measures of retrieval and of short answers, for one question."""

from __future__ import annotations

import math
import re
import string
from collections import Counter
from collections.abc import Sequence, Set

_ARTICLES = re.compile(r"\b(a|an|the)\b")
_PUNCTUATION = str.maketrans("", "", string.punctuation)


def ndcg(ranked: Sequence[str], relevant: Set[str], k: int) -> float:
    """Discounted gain of the first `k` of distinct names, as a share of the best possible; a relevant one counts 1."""
    ideal = sum(1 / math.log2(rank + 1) for rank in range(1, min(k, len(relevant)) + 1))
    gained = sum(1 / math.log2(rank + 1) for rank, name in enumerate(ranked[:k], 1) if name in relevant)
    return gained / ideal if ideal else 0.0


def recall(ranked: Sequence[str], relevant: Set[str], k: int) -> float:
    """Share of the relevant ones among the first `k`."""
    return len(set(ranked[:k]) & relevant) / len(relevant) if relevant else 0.0


def reciprocal_rank(ranked: Sequence[str], relevant: Set[str]) -> float:
    """1 / rank of the first relevant one, 0 without."""
    return next((1 / rank for rank, name in enumerate(ranked, 1) if name in relevant), 0.0)


def exact_match(answer: str, gold: Sequence[str]) -> float:
    """1 if the answer equals a gold one once case, punctuation, articles and spacing are put aside."""
    return float(any(_normal(answer) == _normal(one) for one in gold))


def f1(answer: str, gold: Sequence[str]) -> float:
    """Harmonic mean of precision and recall of the answer's words, against the closest gold answer."""
    return max((_f1(_normal(answer).split(), _normal(one).split()) for one in gold), default=0.0)


def _f1(answer: list[str], gold: list[str]) -> float:
    if not answer or not gold:
        return float(answer == gold)
    shared = sum((Counter(answer) & Counter(gold)).values())
    return 2 * shared / (len(answer) + len(gold))


def _normal(text: str) -> str:
    return " ".join(_ARTICLES.sub(" ", text.lower().translate(_PUNCTUATION)).split())
