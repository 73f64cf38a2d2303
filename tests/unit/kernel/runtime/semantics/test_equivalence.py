"""The same workflow gives equal results however it is cut into calls, partitions and processes."""

from __future__ import annotations

import random
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sage_core.testing.flows import Flows
from tests.unit.kernel.runtime import flow_operators
from tests.unit.kernel.runtime.semantics.test_rows import items, step

WORDS = ["ab", "bad", "ccc", "d", "null"]
TEXTS = [" ".join(random.Random(number).choices(WORDS, k=number % 5)) for number in range(60)]


def workflow(batch: int, partition: int) -> dict[str, Any]:
    """Every shape of step at once: expansion, filter, batch, fold, join, matrix, loop, branch, skip."""
    return {
        "params": {"q": {"type": "string", "default": "query"}},
        "steps": {
            "items": {**items(*TEXTS), "partition": partition},
            "other": items("ab !", "bad ?", "d ."),
            "words": step("f.split", {"text": "items.text"}),
            "frail": step("f.fragile", {"text": "words.word"}, on_error="skip"),
            "many": step("f.fragile_many", {"text": "words.word"}, on_error="skip", batch={"max": batch}),
            "short": step("f.short", {"text": "frail.text"}),
            "upper": step("f.upper_many", {"text": "short.text"}, batch={"max": batch}, checkpoint=True),
            "vector": step("f.embed", {"text": "words.word"}, batch={"max": batch}),
            "query": step("f.embed", {"text": "params.q"}),
            "near": step("f.near", {"vector": "vector.vector", "query": "query.vector"}, batch={"max": batch}),
            "merged": step("f.pair", {"left": ["upper.text", "frail.text", "words.word"], "right": "items.group"}),
            "per": step("f.join", {"text": "merged.left"}, per="items"),
            "cells": step("f.scale", {"text": "per.text"}, matrix={"by": [1, 2]}),
            "grow": step(
                "f.grow", {"state": "per.text"}, repeat={"max": 3, "until": "done", "feed": {"state": "state"}}
            ),
            "pairs": {
                "use": "join",
                "in": {"left": "items", "right": "other"},
                "on": {"items.group": "other.group"},
                "how": "left",
            },
            "show": step("f.pair", {"left": "per.text", "right": "other.text?"}, rows="pairs"),
            "book": step("f.book", {"text": "merged.left"}, batch={"max": batch}),
            "tally": step("f.tally", {"text": "words.word", "id": "words.at"}, batch={"max": batch}),
            "read": step("f.read", {"text": "words.word", "book": "book"}),
        },
        "outputs": {
            name: name
            for name in ("many", "upper", "near", "merged", "per", "cells", "grow", "show", "book", "tally", "read")
        },
    }


def outcome(home: Path, tree: dict[str, Any], workers: int = 0) -> tuple[Any, Any, Any]:
    report = Flows(home, {"flows": flow_operators}).run(tree, workers=workers)
    assert report.status == "partial", report.error
    outputs = dict(report.outputs)
    # The digest names what is in it; the path lies in another home.
    outputs["book"] = outputs["book"]["digest"]
    counts = {name: (s.rows_in, s.rows_out, s.absent, s.failed) for name, s in report.steps.items()}
    return outputs, counts, report.failures


@pytest.fixture(scope="module")
def expected(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Any, Any]:
    return outcome(tmp_path_factory.mktemp("expected"), workflow(64, 256))


def test_the_expected_results_are_something(expected: tuple[Any, Any, Any]) -> None:
    outputs, counts, failures = expected
    assert len(outputs["near"]) == sum(len(text.split()) for text in TEXTS)
    assert len(outputs["per"]) == len(TEXTS)
    assert counts["upper"][2] > 0
    assert {failure.step for failure in failures} == {"frail", "many"}


@pytest.mark.parametrize(("batch", "partition"), [(1, 256), (64, 16), (1, 16), (7, 1)])
def test_sizes_of_batches_and_partitions_do_not_matter(
    tmp_path: Path, expected: tuple[Any, Any, Any], batch: int, partition: int
) -> None:
    assert outcome(tmp_path, workflow(batch, partition)) == expected


def test_worker_processes_do_not_matter(tmp_path: Path, expected: tuple[Any, Any, Any]) -> None:
    assert outcome(tmp_path, workflow(3, 16), workers=2) == expected


@st.composite
def graphs(draw: st.DrawFn) -> dict[str, Any]:
    """A chain of steps over one source, each reading any text column so far; collects at the end."""
    steps: dict[str, Any] = {
        "items": items(*draw(st.lists(st.sampled_from(["", "a", "b bad", "cc d a", "bad", "dddd e"]), max_size=9)))
    }
    columns = ["items.text"]
    for number in range(draw(st.integers(1, 5))):
        name, source = f"s{number}", draw(st.sampled_from(columns))
        use = draw(st.sampled_from(["f.upper", "f.upper_many", "f.split", "f.short", "f.fragile", "f.join"]))
        port = {"f.split": "text"}.get(use, "text")
        steps[name] = step(use, {port: source})
        if use == "f.fragile":
            steps[name]["on_error"] = "skip"
        if use == "f.join":
            steps[name]["per"] = "items"
        if draw(st.booleans()):
            steps[name]["checkpoint"] = True
        columns.append(f"{name}.word" if use == "f.split" else f"{name}.text")
    steps["all"] = step("f.join", {"text": draw(st.sampled_from(columns))})
    return {"steps": steps, "outputs": {"all": "all", **{column.split(".")[0]: column for column in columns}}}


@given(graphs(), st.sampled_from([1, 2, 5]))
@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.too_slow], derandomize=True)
def test_random_graphs_do_not_depend_on_partitions_or_checkpoints(tree: dict[str, Any], partition: int) -> None:
    with tempfile.TemporaryDirectory() as first, tempfile.TemporaryDirectory() as second:
        whole = Flows(Path(first), {"flows": flow_operators}).run(tree)
        cut = {name: {**table, "checkpoint": False} for name, table in tree["steps"].items()}
        cut["items"] = {**cut["items"], "partition": partition}
        parts = Flows(Path(second), {"flows": flow_operators}).run({**tree, "steps": cut})
    assert whole.error == ""
    assert (parts.outputs, parts.failures) == (whole.outputs, whole.failures)
