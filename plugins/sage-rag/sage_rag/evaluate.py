"""`rag.evaluate`: how good retrieval and answers are, over a set of questions."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import msgspec

from sage_core import Dataset, operator
from sage_rag import metrics
from sage_rag.records import Passage, as_passages


class Judged(msgspec.Struct, frozen=True, kw_only=True):
    """One question's results and what they should have been; what is not wired is not measured."""

    passages: list[Passage] | None = None
    #: Paths that answer the question; for lines of a JSONL file, the part after ``#`` is enough.
    relevant: list[str] | None = None
    answer: str | None = None
    #: Acceptable answers.
    gold: list[str] | None = None


class Scores(msgspec.Struct, frozen=True, kw_only=True):
    """Means over the questions that have what the measure needs; None where none has."""

    questions: int
    ndcg: float | None
    recall: float | None
    mrr: float | None
    em: float | None
    f1: float | None


@operator("rag.evaluate")
def evaluate(rows: Dataset[Judged], *, k: int = 10) -> Scores:
    """nDCG and recall at `k` and MRR of the passages' documents; exact match and F1 of the answers, as for SQuAD.

    A document counts once, at its best passage. A question without any relevant document is left out of retrieval
    measures.
    """
    if k < 1:
        raise ValueError(f"k = {k}: at least the first document must count")
    ranked = []
    for row in rows:
        if row.passages is not None and row.relevant:
            ranked.append((_documents(as_passages(row.passages), row.relevant), set(row.relevant)))
    answered = [(row.answer, row.gold) for row in rows if row.answer is not None and row.gold]
    return Scores(
        questions=len(rows),
        ndcg=_mean([metrics.ndcg(names, relevant, k) for names, relevant in ranked]),
        recall=_mean([metrics.recall(names, relevant, k) for names, relevant in ranked]),
        mrr=_mean([metrics.reciprocal_rank(names, relevant) for names, relevant in ranked]),
        em=_mean([metrics.exact_match(answer, gold) for answer, gold in answered]),
        f1=_mean([metrics.f1(answer, gold) for answer, gold in answered]),
    )


def _documents(passages: Sequence[Passage], relevant: Collection[str]) -> list[str]:
    """Names of the documents in order of rank, each once, as the judgements name them."""
    names = []
    for passage in passages:
        # Only what is judged goes by its id: lines of two files may share one.
        _, is_line, id = passage.path.rpartition(".jsonl#")
        names.append(id if is_line and id in relevant and passage.path not in relevant else passage.path)
    return list(dict.fromkeys(names))


def _mean(values: Sequence[float]) -> float | None:
    return round(sum(values) / len(values), 6) if values else None
