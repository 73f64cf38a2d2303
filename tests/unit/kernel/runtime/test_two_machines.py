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


@pytest.mark.parametrize("damage", ["gone", "damaged"])
@pytest.mark.parametrize("shared", [False, True], ids=["sqlite", "postgresql"])
def test_a_result_whose_file_is_gone_everywhere_is_computed_again(
    tmp_path: Path, shared: bool, damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    here = machine(tmp_path, "here") if shared else Flows(tmp_path, {"flows": flow_operators})
    first = here.run(library("f.upper"))
    files = [*here.project.paths.artifacts.glob("??/*.parquet")]
    assert files
    for file in files:
        file.unlink() if damage == "gone" else file.write_bytes(b"no table")
    if shared:
        with here.open_store() as store, store.transaction() as tx:
            tx.drop_blobs([file.name.split(".")[0] for file in files])

    again = here.run(library("f.upper"))

    assert (again.status, again.outputs["found"]) == ("succeeded", first.outputs["found"])
    assert again.steps["rows"].partitions.run == 1
    assert "result_gone" in caplog.text
    # A run that stood on them is continued as well.
    with here.open_store() as store:
        store.resume_run(first.run_id)
        store.cancel_run(first.run_id)
    assert here.resume(first.run_id).status == "succeeded"


def test_a_run_that_is_resumed_over_files_that_are_gone_does_its_work_again(tmp_path: Path) -> None:
    here = Flows(tmp_path, {"flows": flow_operators})
    broken = library("f.upper")
    broken["steps"]["rows"]["with"] = {"texts": [*TEXTS, "bad"]}
    broken["steps"]["last"] = {"use": "f.fragile", "in": {"text": "rows.text"}}
    first = here.run(broken)
    assert first.status == "failed"
    files = [*here.project.paths.artifacts.glob("??/*.parquet")]
    assert files
    for file in files:
        file.unlink()
    again = here.resume(first.run_id)
    # It fails at what it failed at before, and not at what is gone.
    assert again.error == first.error
    assert again.steps["rows"].partitions.run == 1
