"""A schedule falls due while no SAGE process is alive; one tick, as a timer would start it, gives exactly one run."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from sage_core.platform.store import JobStore
from tests.acceptance.conftest import SAGE, Sage
from tests.postgres import schema_url

WORKFLOW = """
sage = 1
name = "nightly"

[params.docs]
type = "path"

[steps.files]
use = "rag.files"
with = { path = "${params.docs}" }

[steps.parse]
use = "rag.parse"
in = { file = "files" }

[outputs]
texts = "parse.text"

[[triggers.cron]]
schedule = "*/5 * * * *"
timezone = "Europe/Berlin"
catchup = "last"
params = { docs = "docs" }
"""
#: Its one job needs nothing but its parameter, so a second run of it has nothing to do.
PURE = """
sage = 1
name = "pure"

[params.text]
type = "string"
default = "A lease is renewed."

[steps.cut]
use = "rag.chunk"
in = { text = "params.text" }
"""
MINUTE = 60_000


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, sage: Sage, tmp_path: Path) -> str:
    """A project with the workflow deployed, on each database."""
    (sage.cwd / "docs").mkdir()
    (sage.cwd / "docs" / "note.md").write_text("A fence only ever grows.\n")
    (sage.cwd / "workflow.toml").write_text(WORKFLOW)
    place = f"sqlite:///{tmp_path}/sage.db" if request.param == "sqlite" else schema_url(tmp_path)
    (sage.cwd / "sage.toml").write_text(f'[store]\nurl = "{place}"\n[queues.default]\nidle = 1.0\n')
    deployed = sage.json("deploy", "workflow.toml")
    assert [each["id"] for each in deployed["schedules"]] == ["nightly/1"]
    assert deployed["warnings"] == []
    return place


def let_time_pass(url: str) -> None:
    """Leave the project alone until its schedule is overdue: what waiting an hour would do to its row."""
    with JobStore.open(url) as store, store.transaction() as tx:
        (row,) = tx.schedules()
        assert row.next_at is not None
        assert row.next_at % (5 * MINUTE) == 0
        tx.move_schedule(row.id, row.next_at - 60 * MINUTE)
        assert tx.live_workers() == []


def runs(sage: Sage) -> list[Mapping[str, Any]]:
    found: list[Mapping[str, Any]] = sage.json("runs", "list")
    return found


def test_one_tick_gives_exactly_one_run_and_workers_execute_it(sage: Sage, url: str) -> None:
    let_time_pass(url)
    assert runs(sage) == []

    told = sage.json("tick", "--no-spawn")
    assert [each["outcome"] for each in told["fired"]] == ["missed", "fired"]
    (run,) = runs(sage)
    assert (run["run_id"], run["status"]) == (told["fired"][1]["run_id"], "queued")

    assert sage.json("tick", "--no-spawn")["fired"] == []
    assert len(runs(sage)) == 1

    sage("worker", "--until-idle", "1s")
    (run,) = runs(sage)
    assert run["status"] == "succeeded"
    shown = sage.json("runs", "show", run["run_id"])
    assert shown["outputs"] == {"texts": ["A fence only ever grows.\n"]}


def test_a_run_of_which_everything_is_there_already_ends_without_a_job(sage: Sage, url: str) -> None:
    (sage.cwd / "pure.toml").write_text(PURE)
    sage.json("deploy", "pure.toml")
    sage("invoke", "pure", "--no-spawn")
    sage("worker", "--until-idle", "0.5s")
    again = sage.json("invoke", "pure", "--no-spawn")
    assert again["status"] == "queued"
    assert sage.json("queues", "list") == []
    assert sage.json("tick")["started"] == ["default"]
    # Ends with the run.
    sage("runs", "show", again["run_id"], "--watch")
    assert [each["status"] for each in runs(sage)] == ["succeeded", "succeeded"]


def test_a_worker_that_is_up_needs_no_tick(sage: Sage, url: str) -> None:
    let_time_pass(url)
    sage("worker", "--until-idle", "1s")
    (run,) = runs(sage)
    assert run["status"] == "succeeded"
    (row,) = sage.json("schedules", "list")
    assert (row["outcome"], row["run_id"]) == ("fired", run["run_id"])


def test_four_ticks_at_once_give_one_run(sage: Sage, url: str) -> None:
    let_time_pass(url)
    command = [str(SAGE), "tick", "--no-spawn", "--json"]
    ticks = [
        subprocess.Popen(command, cwd=sage.cwd, env=sage.environ, stdout=subprocess.PIPE, text=True) for _ in range(4)
    ]
    told = [json.loads(tick.communicate(timeout=60)[0])["fired"] for tick in ticks]
    assert [tick.returncode for tick in ticks] == [0] * 4
    assert sorted(each["outcome"] for fired in told for each in fired) == ["fired", "missed"]
    assert len(runs(sage)) == 1


def test_an_invoked_run_is_waited_for_and_printed_as_a_run_is(sage: Sage, url: str) -> None:
    driven = sage.json("run", "workflow.toml", "--param", "docs=docs")
    waited = sage.json("invoke", "nightly", "--param", "docs=docs", "--wait")
    assert list(waited) == list(driven)
    assert (waited["status"], waited["outputs"]) == ("succeeded", driven["outputs"])
    (sage.cwd / "docs" / "note.md").unlink()
    (sage.cwd / "docs").rmdir()
    failed = sage("invoke", "nightly", "--param", "docs=docs", "--wait", code=1)
    assert "help: mend the cause, then: sage runs resume" in failed.stderr
