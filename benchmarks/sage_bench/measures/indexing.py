"""Time to index a corpus, against a bare loop over the same model in ideal batches, and where the rest of it goes."""

from __future__ import annotations

import json
import os
import pstats
import sys
from pathlib import Path
from typing import Any

import msgspec

from sage_bench.collection import first_documents
from sage_bench.home import WORKFLOWS, Done, Home
from sage_bench.results import Figure, Measured
from sage_bench.suite import Bench
from sage_core import SageError

#: Where self time in the main thread of an inline run belongs, by a part of the file's path; the first match counts.
PARTS = (
    ("waiting for the engine", ("method 'poll' of 'select.epoll'",)),
    ("store (SQLite)", ("sqlite3", "sage_core/platform")),
    ("Parquet", ("pyarrow", "runtime/parquet.py")),
    ("control plane", ("sage_core/kernel/control_plane",)),
    ("runtime", ("sage_core/kernel/runtime",)),
    ("reading the workflow", ("sage_core/kernel/dataflow", "sage_core/cli", "sage_core/common")),
    ("sage-rag", ("sage_rag", "bm25s")),
    ("sage-llm and sage-onnx", ("sage_llm", "sage_onnx", "onnxruntime", "tokenizers")),
    ("asyncio", ("asyncio", "selectors.py")),
    ("imports", ("importlib", "_imp.", "marshal", "posix.stat")),
)


class Indexing(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Indexes into an empty home each time; loop and workflow take turns, and who goes first changes."""

    #: The first N documents of the corpus; 0: all.
    documents: int = 0
    #: Worker processes; 0: everything in one process.
    workers: int = 0
    #: Padded tokens a batch of the bare loop; the best of them, measured on a part of the texts, is taken.
    budgets: tuple[int, ...] = (512, 1_024, 4_096)
    #: Also say where the time goes, from one more run under a profiler.
    profile: bool = False

    def measure(self, bench: Bench) -> Measured:
        """Measure both sides, `repeat` times."""
        assert bench.data is not None, "the suite names no data set"
        corpus = first_documents(bench.data, self.documents, bench.work / "corpus")
        texts = Home(bench.work / "chunks").workflow("chunks", corpus=corpus).report["outputs"]["texts"]
        home = Home(bench.work / "bare")
        budget = self._best_budget(home, texts)
        whole = home.folder / "texts.json"
        whole.write_text(json.dumps(texts), encoding="utf-8")
        bare: list[Done] = []
        sage: list[Done] = []
        for turn in range(bench.repeat):
            if turn % 2:
                bare.append(self._bare(home, whole, budget))
            sage.append(self._index(bench, corpus, turn))
            if not turn % 2:
                bare.append(self._bare(home, whole, budget))
        reports = [done.report for done in sage]
        if any(report["steps"]["embed"]["memo"]["computed"] != len(texts) for report in reports):
            raise SageError("the workflow embedded other passages than the bare loop")
        loops = [done.report for done in bare]
        figures = [
            seconds("SAGE, whole command", [done.seconds for done in sage]),
            seconds("bare loop, whole process", [done.seconds for done in bare]),
            Figure(
                name="SAGE / bare loop",
                unit="×",
                values=tuple(one.seconds / other.seconds for one, other in zip(sage, bare, strict=True)),
                better="lower",
                aim=1.10,
            ),
            *self._processor(sage, bare),
            *(seconds(f"bare loop: {part}", [loop[part] for loop in loops]) for part in ("load", "tokenize", "run")),
        ]
        for step in ("files", "parse", "chunk", "embed", "index"):
            figures.append(seconds(f"step {step}", [report["steps"][step]["seconds"] for report in reports]))
        if not self.workers:
            rest = [
                done.seconds - sum(step["seconds"] for step in report["steps"].values())
                for done, report in zip(sage, reports, strict=True)
            ]
            figures.append(seconds("SAGE outside steps (start-up, store, results)", rest))
        facts: dict[str, Any] = {
            "documents": reports[0]["steps"]["parse"]["rows_out"],
            "passages": len(texts),
            "bare loop": {"budget": budget, "batches": loops[0]["batches"], "padded tokens": loops[0]["padded_tokens"]},
            "threads": threads(),
            "partitions": reports[0]["steps"]["embed"]["partitions"]["total"],
        }
        if self.profile:
            facts["seconds of the main thread under a profiler"] = self._profile(bench, corpus)
        return Measured(figures=tuple(figures), facts=facts)

    def _processor(self, sage: list[Done], bare: list[Done]) -> list[Figure]:
        """The same in processor seconds, which other people's work on the machine hardly moves."""
        if self.workers:
            return []  # The engine host outlives the command, so its seconds are nobody's here.
        ratios = tuple(one.cpu / other.cpu for one, other in zip(sage, bare, strict=True))
        return [
            seconds("SAGE, processor", [done.cpu for done in sage]),
            seconds("bare loop, processor", [done.cpu for done in bare]),
            Figure(name="SAGE / bare loop, processor", unit="×", values=ratios, better="lower", aim=1.10),
        ]

    def _index(self, bench: Bench, corpus: Path, turn: int) -> Done:
        home = Home(bench.work / f"sage-{turn}")
        where = ("--inline",) if not self.workers else ("--workers", str(self.workers))
        return home.workflow("index", *where, corpus=corpus)

    def _bare(self, home: Home, texts: Path, budget: int) -> Done:
        return home.run([sys.executable, "-m", "sage_bench.bare", str(texts), str(threads()), str(budget)])

    def _best_budget(self, home: Home, texts: list[str]) -> int:
        part = home.folder / "part.json"
        part.write_text(json.dumps(texts[:: max(1, len(texts) // 100)]), encoding="utf-8")
        times = {budget: self._bare(home, part, budget).report["run"] for budget in self.budgets}
        return min(times, key=lambda budget: times[budget])

    def _profile(self, bench: Bench, corpus: Path) -> dict[str, float]:
        home = Home(bench.work / "profile")
        out = home.folder / "profile"
        workflow = str(WORKFLOWS / "index.toml")
        home.run(
            [
                *(sys.executable, "-m", "cProfile", "-o", str(out), "-m", "sage_core.cli"),
                *("run", workflow, f"--param=corpus={corpus}", "--inline", "--json"),
            ]
        )
        return split(out)


def split(profile: Path) -> dict[str, float]:
    """Self time by `PARTS`, in seconds."""
    total: dict[str, float] = {}
    stats: dict[tuple[str, int, str], tuple[int, int, float, float, object]] = pstats.Stats(str(profile)).stats  # type: ignore[attr-defined]
    for (file, _, function), (_, _, own, _, _) in stats.items():
        place = f"{file}:{function}"
        part = next((name for name, marks in PARTS if any(mark in place for mark in marks)), "everything else")
        total[part] = total.get(part, 0.0) + own
    return {name: round(value, 3) for name, value in sorted(total.items(), key=lambda item: -item[1])}


def seconds(name: str, values: list[float]) -> Figure:
    """A time, in seconds."""
    return Figure(name=name, unit="s", values=tuple(round(value, 4) for value in values), better="lower")


def threads() -> int:
    """As many as the backend takes: one a core that this process may use."""
    return len(os.sched_getaffinity(0))
