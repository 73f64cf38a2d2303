from __future__ import annotations

import os
from pathlib import Path

import pytest

from sage_core.testing import Flows
from tests.unit.kernel.runtime import flow_operators

PLUGINS = {"flows": flow_operators}

WORKFLOW = """
sage = 1

[params]
text = { type = "string" }

[steps.up]
use = "f.upper"
in = { text = "params.text" }

[steps.where]
use = "f.pid"
in = { text = "up.text" }
"""


def test_a_workflow_runs_as_text_as_a_file_and_as_tables(tmp_path: Path) -> None:
    flows = Flows(tmp_path / "home", PLUGINS)
    path = tmp_path / "w.toml"
    path.write_text(WORKFLOW, encoding="utf-8")
    tables = {"steps": {"up": {"use": "f.upper", "in": {"text": {"value": "x"}}}}}
    assert flows.run(WORKFLOW, {"text": "x"}).outputs["where"] == os.getpid()
    assert flows.run(path, {"text": "y"}).steps["up"].rows_out == 1
    assert flows.run(tables).outputs == {"up": "X"}


@pytest.mark.parametrize("workers", [0, 1])
def test_workers_are_processes_of_their_own(tmp_path: Path, workers: int) -> None:
    report = Flows(tmp_path, PLUGINS).run(WORKFLOW, {"text": "x"}, workers=workers)
    assert report.status == "succeeded", report.error
    assert (report.outputs["where"] == os.getpid()) is (workers == 0)


def test_later_runs_find_what_earlier_ones_left_and_nothing_lies_elsewhere(tmp_path: Path) -> None:
    flows = Flows(tmp_path / "home", PLUGINS)
    assert flows.run(WORKFLOW, {"text": "x"}).steps["up"].partitions.run == 1
    assert flows.run(WORKFLOW, {"text": "x"}).steps["up"].partitions.reused == 1
    assert flows.plan(WORKFLOW, {"text": "x"})["up"].verb == "reuse"
    with flows.open_store() as store:
        assert [run.status for run in store.runs()] == ["succeeded", "succeeded"]
    assert [path.name for path in tmp_path.iterdir()] == ["home"]
