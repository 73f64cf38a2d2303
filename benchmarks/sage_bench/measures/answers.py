"""Short answers of the small local model over retrieved passages, for a seeded sample of questions."""

from __future__ import annotations

import msgspec

from sage_bench.collection import corpus_of
from sage_bench.home import Home
from sage_bench.results import Figure, Measured
from sage_bench.suite import Bench


class Answers(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Exact match and F1, reported without an aim: they say how small the model is more than how good SAGE is."""

    sample: int = 100

    def measure(self, bench: Bench) -> Measured:
        """Answer the sample once, at temperature 0."""
        assert bench.data is not None, "the suite names no data set"
        home = Home(bench.work / "answers")
        done = home.workflow(
            "answers", corpus=corpus_of(bench.data), questions=bench.data, sample=self.sample, seed=bench.seed
        )
        outputs = done.report["outputs"]
        named = (("exact match", "em"), ("F1", "f1"))
        return Measured(
            figures=tuple(
                Figure(
                    name=name,
                    unit="",
                    values=tuple(outputs[key]),
                    statistic="mean",
                    better="higher",
                    over="questions",
                )
                for name, key in named
            ),
            facts={
                "questions": len(outputs["answers"]),
                "model": "smollm2",
                "tokens": done.report["tokens"],
                "seconds": round(done.seconds, 1),
                "rag.evaluate": {key: outputs[f"mean_{key}"] for _, key in named},
            },
        )
