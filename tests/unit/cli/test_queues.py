"""Tests of sage_core.cli.queues: what waits where, and the switch of each queue."""

from __future__ import annotations

import re

from sage_core.platform.records import NewJob, NewRun
from sage_core.platform.store import JobStore
from tests.unit.cli.conftest import Cli
from tests.unit.cli.test_runs import a_run


def test_queues_are_listed_without_those_of_driven_runs(cli: Cli) -> None:
    assert cli("queues", "list", "--json").json == []
    assert cli("queues", "list").err.startswith("No queues in ")
    a_run(cli)
    with JobStore.open(f"sqlite:///{cli.home}/project/sage.db") as store, store.transaction() as tx:
        tx.insert_run(NewRun(id="r", workflow="w"))
        tx.insert_jobs([NewJob(run_id="r", stage="s", queue="nightly"), NewJob(run_id="r", stage="t", queue="run:r")])
    (row,) = cli("queues", "list", "--json").json
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", row["oldest_at"])
    assert {**row, "oldest_at": ""} == {
        "name": "nightly",
        "paused": False,
        "ready": 1,
        "delayed": 0,
        "held": 0,
        "running": 0,
        "blocked": 0,
        "oldest_at": "",
    }
    assert [each["name"] for each in cli("queues", "list", "--all", "--json").json] == ["nightly", "run:r"]
    assert cli("queues", "list").out.splitlines()[1].split()[:6] == ["nightly", "1", "0", "0", "0", "0"]


def test_a_paused_queue_gives_no_job_until_it_goes_on(cli: Cli) -> None:
    assert cli("queues", "pause", "nightly").code == 2
    a_run(cli)
    assert cli("queues", "pause", "nightly").out == "queue nightly: paused\n"
    assert cli("queues", "list").out.splitlines()[1].split() == ["nightly", "0", "0", "0", "0", "0", "paused"]
    with JobStore.open(f"sqlite:///{cli.home}/project/sage.db") as store:
        with store.transaction() as tx:
            tx.insert_run(NewRun(id="r", workflow="w"))
            # Not due, so that nobody is started for it when the queue goes on.
            tx.insert_jobs([NewJob(run_id="r", stage="s", queue="nightly", delay_ms=3_600_000)])
        said = cli("queues", "resume", "nihtly")
        assert (said.code, said.err) == (
            2,
            "Error: Queue 'nihtly' is not paused. Did you mean 'nightly'?\n"
            "  help: paused: nightly; see: sage queues list\n",
        )
        assert cli("queues", "resume", "nightly", "--json").json == {"queue": "nightly", "paused": False}
        assert [queue.paused for queue in store.queues()] == [False]
