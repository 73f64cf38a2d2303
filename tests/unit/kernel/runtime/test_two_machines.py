"""Runs of two machines with a PostgreSQL in common and no disk: what one computed, the other reads."""

from __future__ import annotations

import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import msgspec
import pytest

from sage_core import Node
from sage_core.common.config import Config, StoreConfig
from sage_core.testing.flows import Flows
from tests.postgres import schema_url
from tests.unit.kernel.runtime import flow_operators
from tests.unit.kernel.runtime.one_process import one_process

#: Long enough that no table of them stays in its row of the store.
TEXTS = [f"{n}:" + "x" * 2_000 for n in range(80)]


def machine(tmp_path: Path, name: str) -> Flows:
    """A machine of its own, with the database that all of this test share."""
    config = Config(store=StoreConfig(url=schema_url(tmp_path)))
    return Flows(tmp_path / name, {"flows": flow_operators}, config=config)


def library(last: str) -> dict[str, Any]:
    return {
        "steps": {
            "rows": {"use": "f.items", "with": {"texts": TEXTS}},
            "up": {"use": "f.upper", "in": {"text": "rows.text"}, "partition": 40, "checkpoint": True},
            "book": {"use": "f.book", "in": {"text": "up.text"}},
            "find": {"use": "f.read", "in": {"book": "book", "text": "up.text"}},
            "last": {"use": last, "in": {"text": "up.text"}},
        },
        "outputs": {"found": "find.found", "book": "book"},
    }


@pytest.mark.parametrize("workers", [0, 2])
def test_a_run_goes_on_over_files_that_another_machine_made(tmp_path: Path, workers: int) -> None:
    here, there = machine(tmp_path, "here"), machine(tmp_path, "there")
    first = here.run(library("f.upper"), workers=workers)
    assert (first.status, first.outputs["found"]) == ("succeeded", [True] * len(TEXTS))
    assert list(here.project.paths.artifacts.glob("??/*.parquet"))
    shutil.rmtree(here.project.paths.artifacts)

    again = there.run(library("f.upper"), workers=workers)
    assert again.outputs["found"] == first.outputs["found"]
    assert {name for name, step in again.steps.items() if step.partitions.run} == set(), "everything is reused"

    # A step that nobody has run reads what the first machine made.
    more = library("f.upper")
    more["steps"]["check"] = {"use": "f.read", "in": {"book": "book", "text": "last.text"}}
    more["outputs"] = {"found": "check.found"}
    report = there.run(more, workers=workers)
    assert report.outputs == {"found": [True] * len(TEXTS)}
    assert report.steps["up"].partitions.run == 0
    assert report.steps["check"].partitions.run > 0


def test_whoever_makes_a_job_ready_means_it_for_a_node(tmp_path: Path) -> None:
    flows = machine(tmp_path, "here")
    workflow: dict[str, Any] = {
        "steps": {
            "rows": {"use": "f.items", "with": {"texts": ["a", "b", "c", "d"]}, "partition": 1},
            "up": {"use": "f.upper", "in": {"text": "rows.text"}, "checkpoint": True},
            "again": {"use": "f.upper", "in": {"text": "up.text"}, "needs": {"labels": ["right"]}},
        }
    }
    with one_process(flows, workflow) as run:
        with run.store.transaction() as tx:
            for name in ("left", "right"):
                body = msgspec.json.encode(Node(name=name, cpu=2, memory=1, labels=(name,))).decode()
                tx.announce_node(name=name, supervisor=name, host=name, body=body, node_ms=0, silence_ms=1)
                tx.take_spawn(node=name, queue="default", holder=name, lease_ms=600_000)
        run.submit()
        (rows,) = run.jobs("rows")
        assert rows.node in ("left", "right")
        assert rows.node_until is not None
        run.node = rows.node
        run.one()
        # The source's rows opened partitions: ready ones are spread, blocked ones wait to be placed.
        assert Counter(job.node for job in run.jobs("up")) == {"left": 2, "right": 2}
        assert {job.node for job in run.jobs("again")} == {None}
        run.node = "left"
        done = run.one()
        assert done.stage == "up"
        (after,) = [job for job in run.jobs("again") if job.part == done.part]
        assert (after.state, after.node) == ("ready", "right")
