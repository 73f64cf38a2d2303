"""The suite `jobs`: small rounds on both databases, and the options that choose among its cases."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest
from sage_bench.crew import crew, fill
from sage_bench.drain import Order
from sage_bench.measures.queue import Queue, place
from sage_bench.runner import Plan
from sage_bench.suite import Bench, bundled, load

from sage_core.platform.store import JobStore

Sage = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.mark.parametrize("store", ["sqlite", "postgres"])
def test_a_queue_is_measured_beside_the_bare_loop(store: str, tmp_path: Path) -> None:
    options = {"store": store, "batches": [1, 4], "workers": [2], "jobs": 30}
    measured = msgspec.convert(options, Queue).measure(Bench(work=tmp_path, seed=0, repeat=2))
    figures = {figure.name: figure for figure in measured.figures}
    assert len(figures["batch 4, 2 workers: SAGE / bare SQL"].values) == 2
    assert figures["batch 1, 2 workers: SAGE"].value > 0
    for side in ("SAGE", "bare SQL"):
        single, batched = (figures[f"batch {batch}: {side}, SQL statements"].value for batch in (1, 4))
        assert single > batched > 0
        assert figures[f"batch 1: {side}, write-ahead log"].value > 0


@pytest.mark.parametrize("side", ["sage", "bare"])
def test_both_sides_leave_the_same(side: str, tmp_path: Path) -> None:
    with place("sqlite", tmp_path) as (url, _), JobStore.open(url) as store, crew(url, 2) as hands:
        queue = fill(store, 10)
        done = hands.drain(Order(side=side, queue=queue, batch=3), 2, 10)
        assert done.jobs == 10
        jobs = store.jobs(queue)
        assert {(job.state, job.fence, job.attempt, job.result_key) for job in jobs} == {
            ("done", 1, 1, f"{queue}/{job.id}") for job in jobs
        }
        assert set(store.results([f"{queue}/{job.id}" for job in jobs]).values()) == {b"body"}
        assert {attempt.outcome for attempt in store.attempts(queue)} == {"done"}
        assert len(store.attempts(queue)) == 10


def test_options_choose_cases_and_replace_what_these_measure() -> None:
    suite = load(bundled()["jobs"])
    every = Plan(suite=suite, named="jobs").cases()
    assert "peers" not in every
    assert "peers" in Plan(suite=suite, named="jobs", optional=True).cases()
    given = {"batches": [2], "workers": [3], "postgres": "postgresql://somewhere/x"}
    chosen = Plan(suite=suite, named="jobs", store="postgres", given=given).cases()
    assert all(name.endswith("postgres") for name in chosen)
    assert chosen["postgres"].options == {**every["postgres"].options, **given}
    assert chosen["pickup-postgres"].options == {"store": "postgres", "postgres": "postgresql://somewhere/x"}


def test_the_command_takes_lists_and_says_what_is_none(sage: Sage, tmp_path: Path) -> None:
    suite = 'suite = "s"\ntitle = "t"\nshows_not = "x"\n\n[cases.one]\nmeasure = "queue"\n'
    (tmp_path / "s.toml").write_text(suite + 'with = { store = "sqlite", jobs = 20 }\n')
    done = sage("bench", "run", "s.toml", "--batches", "2", "--workers", "1", "--json")
    assert done.returncode == 0, done.stderr
    line = json.loads(done.stdout)
    assert line["rerun"][0].endswith("--batches 2 --workers 1")
    assert {figure["name"].partition(",")[0] for figure in line["figures"]} >= {"batch 2"}
    wrong = sage("bench", "run", "s.toml", "--batches", "0")
    assert wrong.returncode == 2
    assert "'0' is not a list of numbers such as 1,16,128" in wrong.stderr
