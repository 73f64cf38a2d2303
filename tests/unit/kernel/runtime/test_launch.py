"""Tests of sage_core.kernel.runtime.launch: from a file to a run, and back to one that was left."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from sage_core import hookimpl, operator
from sage_core.common.errors import InvalidWorkflow, UsageError
from sage_core.kernel.runtime import launch
from sage_core.testing.flows import Flows


@operator("l.lines", returns="line", pure=False)
def lines(*, path: Path) -> Iterator[str]:
    yield from path.read_text().splitlines()


@operator("l.here", returns="where", pure=False)
def here(line: str) -> str:
    if line == "bad":
        raise ValueError(line)
    return f"{Path.cwd().name}: {line}"


class Operators:
    @hookimpl
    def sage_operators(self) -> Mapping[str, str]:
        return {f"l.{name}": f"{__name__}:{name}" for name in ("lines", "here")}


WORKFLOW = """
sage = 1
name = "w"

[params.path]
type = "path"

[steps.lines]
use = "l.lines"
with = { path = "${params.path}" }

[steps.here]
use = "l.here"
in = { line = "lines.line" }
"""


@pytest.fixture
def flows(tmp_path: Path) -> Flows:
    (tmp_path / "started").mkdir()
    (tmp_path / "started" / "text.txt").write_text("one\nbad\n")
    return Flows(tmp_path, {"operators": Operators()})


def test_a_project_is_found_from_a_folder_with_its_settings(tmp_path: Path, sage_home: Path) -> None:
    (tmp_path / "sage.toml").write_text('[workers]\ncount = 3\n[store]\nurl = "sqlite:////elsewhere.db"\n')
    inside = tmp_path / "inside"
    inside.mkdir()
    project = launch.find_project(inside)
    assert (project.folder, project.config.workers.count, project.url) == (inside, 3, "sqlite:////elsewhere.db")
    assert project.paths.project == sage_home / "project"


def test_without_settings_the_store_is_the_projects(tmp_path: Path, sage_home: Path) -> None:
    project = launch.find_project(tmp_path)
    assert project.url == f"sqlite:///{sage_home}/project/sage.db"
    with project.open_store() as store:
        assert store.runs() == []


def test_run_ids_are_short_unique_and_sort_by_time() -> None:
    ids = [launch.new_run_id() for _ in range(50)]
    assert len(set(ids)) == 50
    assert all(re.fullmatch(r"\d{6}-\d{6}-[0-9a-f]{6}", id) for id in ids)
    assert [id[:13] for id in ids] == sorted(id[:13] for id in ids)


def test_everything_wrong_with_parameters_is_said_before_anything_is_stored(flows: Flows) -> None:
    with pytest.raises(UsageError, match="param 'path' is missing"):
        flows.run(WORKFLOW)
    with pytest.raises(InvalidWorkflow, match="no operator is named"):
        flows.run(WORKFLOW.replace("l.here", "l.hare"))
    with flows.open_store() as store:
        assert store.runs() == []


def test_a_resume_works_in_the_folder_the_run_was_started_in(flows: Flows, tmp_path: Path) -> None:
    with contextlib.chdir(tmp_path / "started"):
        failed = flows.run(WORKFLOW, {"path": "text.txt"})
    assert failed.status == "failed"
    (tmp_path / "started" / "text.txt").write_text("one\ntwo\n")

    other = tmp_path / "other"
    other.mkdir()
    with contextlib.chdir(other):
        resumed = flows.resume(failed.run_id[:20])
        assert Path.cwd() == other
    assert (resumed.run_id, resumed.status) == (failed.run_id, "failed")
    assert "bad" in resumed.error, "the lines are those the run began with"

    again = flows.run(WORKFLOW, {"path": str(tmp_path / "started" / "text.txt")})
    assert again.outputs == {"here": [f"{Path.cwd().name}: one", f"{Path.cwd().name}: two"]}


def test_a_resume_says_when_that_folder_is_gone(flows: Flows, tmp_path: Path) -> None:
    with contextlib.chdir(tmp_path / "started"):
        failed = flows.run(WORKFLOW, {"path": "text.txt"})
    (tmp_path / "started").rename(tmp_path / "moved")
    with pytest.raises(UsageError) as caught:
        flows.resume(failed.run_id)
    assert str(caught.value) == (
        f"run {failed.run_id} was started in {tmp_path / 'started'}, which is gone\n  help: put the folder back"
    )


def test_a_plan_leaves_nothing_behind(flows: Flows, tmp_path: Path) -> None:
    path = str(tmp_path / "started" / "text.txt")
    found = flows.plan(WORKFLOW, {"path": path}, probe=True)
    assert {name: (step.verb, step.rows) for name, step in found.items()} == {
        "lines": ("always", 0),
        "here": ("always", 2),
    }
    with flows.open_store() as store:
        assert store.runs() == []
        assert store.live_workers() == []
