"""A collection small enough to write down, and a way to run `sage bench` as a user does."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from sage_bench.home import clean_environment, sage_command

DOCUMENTS = {
    "d1": ("Leases", "A worker holds a lease on its job and renews it with a heartbeat."),
    "d2": ("Fences", "A fence is a number that only grows and guards every write of an attempt."),
    "d3": ("Empty", ""),
    "d4": ("Grains", "A grain is a level of rows; the run is the root grain."),
    "d5": ("Bread", "Knead the dough for ten minutes and let it rise in a warm place."),
}
QUESTIONS = {
    "q1": ("What guards the writes of an attempt?", ["d2"], ["a fence"]),
    "q2": ("How long is dough kneaded?", ["d5"], ["ten minutes"]),
    "q3": ("What is the root grain?", ["d4"], ["the run"]),
    "q4": ("A question that nobody judged.", [], []),
}

Sage = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def collection(tmp_path: Path) -> Path:
    """The folder of the collection, in the layout of the real ones."""
    folder = tmp_path / "data" / "cranfield"
    (folder / "qrels").mkdir(parents=True)
    corpus = [{"_id": name, "title": title, "text": text} for name, (title, text) in DOCUMENTS.items()]
    queries = [{"_id": name, "text": text} for name, (text, _, _) in QUESTIONS.items()]
    gold = [{"id": name, "question": text, "answers": answers} for name, (text, _, answers) in QUESTIONS.items()]
    for name, rows in (("corpus", corpus), ("queries", queries), ("qa", gold)):
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    judged = [f"{name}\t{document}\t1" for name, (_, relevant, _) in QUESTIONS.items() for document in relevant]
    lines = ["query-id\tcorpus-id\tscore", *judged, "q1\td1\t0"]
    (folder / "qrels" / "test.tsv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return folder


@pytest.fixture
def sage(tmp_path: Path) -> Sage:
    """Run `sage` in the test's folder and return what became of it."""

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        environ = clean_environment() | {"SAGE_HOME": str(tmp_path / "home")}
        return subprocess.run(
            sage_command(arguments), cwd=tmp_path, env=environ, capture_output=True, text=True, check=False
        )

    return run
