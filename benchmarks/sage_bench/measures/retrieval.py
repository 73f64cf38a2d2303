"""Retrieval quality of BM25, vectors and their fusion, through a whole SAGE workflow, over every judged question."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import msgspec

from sage_bench import quality
from sage_bench.collection import Question, corpus_of, read_questions
from sage_bench.home import Home
from sage_bench.intervals import differs
from sage_bench.results import Figure, Measured
from sage_bench.suite import Bench
from sage_core import SageError

MODES = ("bm25", "dense", "hybrid")

_MEASURES: Mapping[str, Callable[[Sequence[str], Sequence[str], int], float]] = {
    "ndcg": quality.ndcg,
    "recall": quality.recall,
    "mrr": quality.mrr,
}


class Retrieval(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Ranks documents by their best passage; each figure is ``NAME@K``."""

    figures: tuple[str, ...] = ("ndcg@10", "recall@100", "mrr@10")
    #: Passages to retrieve; more than the deepest figure needs, because a document may hold several.
    k: int = 200

    def measure(self, bench: Bench) -> Measured:
        """Run the workflow once: nothing in it is random, so a second run would add no information."""
        assert bench.data is not None, "the suite names no data set"
        asked = read_questions(bench.data)
        home = Home(bench.work / "retrieval")
        report = home.workflow("retrieval", corpus=corpus_of(bench.data), questions=bench.data, k=self.k).report
        outputs = report["outputs"]
        if outputs["ids"] != [question.id for question in asked]:
            raise SageError("the workflow answered other questions than the collection holds")
        for mode in MODES:
            check(asked, outputs[mode], outputs[f"{mode}_ndcg"], mode)
        values = {(name, mode): score(name, asked, outputs[mode]) for name in self.figures for mode in MODES}
        figures = tuple(
            Figure(
                name=f"{mode} {name}",
                unit="",
                values=tuple(round(value, 6) for value in found),
                statistic="mean",
                better="higher",
                over="questions",
            )
            for (name, mode), found in values.items()
        )
        facts = {
            "questions": len(asked),
            "documents": report["steps"]["parse"]["rows_out"],
            "documents skipped": report["steps"]["parse"]["failed"],
            "passages": report["steps"]["chunk"]["rows_out"],
            "fusion": "reciprocal rank, k = 60, of the first 200 of each ranking",
        }
        return Measured(
            figures=figures,
            facts=facts,
            remarks=verdicts({m: values[self.figures[0], m] for m in MODES}, self.figures[0]),
        )


def score(figure: str, asked: Sequence[Question], rankings: Sequence[Sequence[str]]) -> list[float]:
    """One value a question."""
    name, _, k = figure.partition("@")
    measure = _MEASURES[name]
    return [measure(ranking, question.relevant, int(k)) for question, ranking in zip(asked, rankings, strict=True)]


def check(asked: Sequence[Question], rankings: Sequence[Sequence[str]], judged: float, mode: str) -> None:
    """Hold `rag.evaluate` against the measure written apart from it."""
    own = score("ndcg@10", asked, rankings)
    mean = sum(own) / len(own)
    if abs(mean - judged) > 1e-5:
        raise SageError(f"{mode}: rag.evaluate finds nDCG@10 {judged:.6f}, this package {mean:.6f}")


def verdicts(values: Mapping[str, Sequence[float]], figure: str) -> tuple[str, ...]:
    """Say of hybrid, against each of its parts, whether it is better, with the interval of the paired difference."""
    said = []
    for other in ("bm25", "dense"):
        mean, low, high = differs(values["hybrid"], values[other])
        verdict = "above" if low > 0 else "below" if high < 0 else "not told apart from"
        said.append(
            f"hybrid is {verdict} {other} in {figure}: {mean:+.4f} [{low:+.4f}, {high:+.4f}], paired by question"
        )
    return tuple(said)
