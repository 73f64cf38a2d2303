"""Measures on real runs of very small inputs: what they count is right; how long it takes is not asserted."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
from sage_bench.collection import read_questions
from sage_bench.home import Heard, Home
from sage_bench.measures.commands import Command, Commands
from sage_bench.measures.indexing import Indexing
from sage_bench.measures.jobs import Jobs
from sage_bench.measures.phases import PHASES, Phases, split
from sage_bench.measures.retrieval import check, verdicts
from sage_bench.measures.rows import Rows
from sage_bench.results import Measured
from sage_bench.suite import Bench

from sage_core import SageError


def values(measured: Measured) -> dict[str, tuple[float, ...]]:
    return {figure.name: figure.values for figure in measured.figures}


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(work=tmp_path / "work", seed=0, repeat=1)


def test_rows_are_all_counted(bench: Bench) -> None:
    measured = Rows(count=600).measure(bench)
    assert measured.facts["rows"] == 600
    assert measured.facts["jobs"] >= 600 / 256 + 2
    assert values(measured)["plain loop"][0] > 0
    assert values(measured)["operators inside jobs / plain loop"][0] > 1


def test_every_row_is_a_job_and_costs_some_statements(bench: Bench) -> None:
    measured = Jobs(count=12, small=4, workers=0).measure(bench)
    per_job = values(measured)["SQL statements"][0]
    assert 3 < per_job < 100
    assert sum(measured.facts["per job"].values()) == pytest.approx(per_job, abs=0.1)
    assert measured.facts["per job"]["BEGIN"] == measured.facts["per job"]["COMMIT"] >= 1


def test_commands_are_compared_with_python_and_their_imports_looked_at(bench: Bench) -> None:
    slow = Command(run="python -c 'import time; time.sleep(0.3)'")
    guilty = Command(run="python -c 'import numpy'", without=("numpy", "pyarrow"))
    measured = Commands(commands={"slow": slow, "guilty": guilty}).measure(bench)
    assert values(measured)["slow, above python"][0] > 200
    assert measured.facts["guilty: imported of numpy, pyarrow"] == ["numpy"]
    assert measured.remarks == ("guilty imports numpy, which it must not",)


def test_phases_of_a_question_follow_one_another(bench: Bench) -> None:
    found = values(Phases(documents=3).measure(bench))
    phases = [found[f"phase: {name}"][0] for name, _ in PHASES]
    assert all(milliseconds > 0 for milliseconds in phases)
    assert found["with one worker: engine host until the model load begins"][0] > 0
    assert found["with one worker: worker until it has the store"][0] > 0


def test_a_phase_that_was_not_heard_is_an_error() -> None:
    with pytest.raises(SageError, match="ended without"):
        split(0, Heard(["sage"], [("start", 5)], {}, []))


def test_both_sides_of_indexing_embed_the_same_passages(bench: Bench, collection: Path) -> None:
    measured = Indexing(budgets=(512,), profile=True).measure(Bench(work=bench.work, seed=0, repeat=2, data=collection))
    assert measured.facts["documents"] == 4
    assert measured.facts["passages"] == 4
    found = values(measured)
    ratio = found["SAGE, whole command"][1] / found["bare loop, whole process"][1]
    assert found["SAGE / bare loop"][1] == pytest.approx(ratio, rel=0.01)
    assert measured.facts["seconds of the main thread under a profiler"]["imports"] > 0


def test_the_bare_loop_makes_the_vectors_that_the_workflow_makes(bench: Bench, collection: Path) -> None:
    """Same file, tokenizer, truncation and pooling: else the two times could not be compared."""
    home = Home(bench.work / "vectors")
    workflow = home.folder / "vectors.toml"
    index = (Path(__file__).parents[1] / "sage_bench" / "workflows" / "index.toml").read_text()
    workflow.write_text(index.partition("[outputs]")[0] + '[outputs]\nvectors = "embed.vector"\ntexts = "chunk.text"\n')
    report = home.sage("run", str(workflow), f"--param=corpus={collection}/corpus.jsonl", "--json").report
    texts = home.folder / "texts.json"
    texts.write_text(json.dumps(report["outputs"]["texts"]))
    loop = home.run([sys.executable, "-m", "sage_bench.bare", str(texts), "1", "512"]).report
    mass = sum(abs(number) for vector in report["outputs"]["vectors"] for number in vector)
    assert loop["checksum"] == pytest.approx(mass, rel=1e-3)


def test_hybrid_is_called_above_only_where_the_interval_says_so() -> None:
    better = verdicts({"hybrid": [0.5, 0.6] * 20, "bm25": [0.4, 0.5] * 20, "dense": [0.6, 0.5] * 20}, "ndcg@10")
    assert better[0].startswith("hybrid is above bm25 in ndcg@10: +0.1000")
    assert better[1].startswith("hybrid is not told apart from dense")


def test_a_judge_that_disagrees_is_an_error(collection: Path) -> None:
    asked = read_questions(collection)
    rankings = [["d2"], ["d5"], ["d4"]]
    check(asked, rankings, 1.0, "dense")
    with pytest.raises(SageError, match=r"dense: rag\.evaluate finds nDCG@10 0\.900000, this package 1\.000000"):
        check(asked, rankings, 0.9, "dense")
