"""Tests of sage_core.cli.tick: what is due is fired and told; that each fires once is tested with the runtime."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from sage_core.kernel.runtime.launch import find_project
from sage_core.platform.records import NewJob, NewRun, NewWorker
from tests.unit.cli.conftest import Cli
from tests.unit.cli.test_deploy import STEPS
from tests.unit.kernel.runtime.schedule_operators import CRON, MINUTE, PLUGINS

#: Seldom enough that no fire time passes while a test runs; caught up, however late.
SELDOM = CRON.replace("*/5", "*/30") + 'catchup = "last"\n'


@pytest.fixture
def cli(cli: Cli) -> Cli:
    cli.plugins |= {"triggers": PLUGINS["triggers"]}
    return cli


def make_due(id: str = "w/1") -> None:
    """Put a schedule's next fire time to the last one that passed."""
    with find_project(Path.cwd()).open_store() as store, store.transaction() as tx:
        tx.move_schedule(id, store.now() // (30 * MINUTE) * 30 * MINUTE)


def test_nothing_is_due(cli: Cli) -> None:
    nothing = {"fired": [], "expired": 0, "started": [], "pruned": {}, "next_due_ms": None}
    assert cli("tick", "--json").json == nothing
    cli("deploy", cli.write(STEPS + SELDOM))
    said = cli("tick")
    assert (said.code, said.out, said.err) == (0, "", "")
    assert 0 < cli("tick", "--json").json["next_due_ms"] <= 30 * MINUTE


def test_what_is_due_is_fired_and_told(cli: Cli) -> None:
    cli("deploy", cli.write(STEPS + SELDOM))
    make_due()
    said = cli("tick", "--no-spawn")
    found = re.fullmatch(r"w/1 (\S+Z): fired, run (\S+)\n", said.out)
    assert found, said
    assert [(run["run_id"], run["status"]) for run in cli("runs", "list", "--json").json] == [(found[2], "queued")]
    assert cli("tick", "--no-spawn").out == ""
    (row,) = cli("schedules", "list", "--json").json
    assert (row["last_at"], row["outcome"], row["run_id"]) == (found[1], "fired", found[2])


def test_a_schedule_that_cannot_be_fired_is_an_exit_status(cli: Cli) -> None:
    cli("deploy", cli.write(STEPS + SELDOM))
    make_due()
    del cli.plugins["run"]
    said = cli("tick", "--no-spawn", "--json")
    assert said.code == 1
    (fired,) = said.json["fired"]
    assert (fired["schedule"], fired["outcome"], fired["run_id"]) == ("w/1", "failed", None)
    assert fired["error"].startswith("No operator is named 't.lines'")
    assert said.err == f"Error: schedule w/1: {fired['error']}\n"
    assert "failed: No operator is named 't.lines'" in cli("schedules", "list").out


def test_jobs_whose_lease_ran_out_are_taken_back(cli: Cli) -> None:
    with find_project(Path.cwd()).open_store() as store:
        with store.transaction() as tx:
            tx.insert_run(NewRun(id="r", workflow="w"))
            tx.insert_jobs([NewJob(run_id="r", stage="s", queue="q")])
        # On another machine, so that only its lease tells that it is gone.
        store.register_worker(NewWorker(id="w1", kind="worker", host="elsewhere", boot_id="", pid=1, ticks=0))
        assert len(store.claim("w1", queue="q", lease_ms=-1)) == 1
    assert cli("tick", "--no-spawn", "--json").json["expired"] == 1
    with find_project(Path.cwd()).open_store() as store:
        assert [job.state for job in store.jobs("r")] == ["ready"]


def test_what_is_not_to_be_kept_is_removed(cli: Cli) -> None:
    cli("run", cli.write(STEPS))
    assert cli("tick", "--no-spawn", "--json").json["pruned"] == {}
    (cli.cwd / "sage.toml").write_text("[retention]\nruns_days = 0.0\n")
    assert cli("tick", "--no-spawn").out.startswith("removed 1 runs")
    assert cli("runs", "list", "--json").json == []
