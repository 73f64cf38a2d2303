"""Tests of sage_core.cli.jobs: what became of jobs, and another chance for those that failed."""

from __future__ import annotations

from sage_core.platform.store import JobStore
from tests.unit.cli.conftest import Cli
from tests.unit.cli.test_runs import GATE, a_run


def test_failed_jobs_are_listed_shown_and_redriven(cli: Cli) -> None:
    assert cli("jobs", "list", "--json").json == []
    assert cli("jobs", "list").err == f"No jobs in {cli.home / 'project'}\n"
    run_id = a_run(cli, GATE, "gate.toml", code=1)
    a_run(cli)
    (failed,) = cli("jobs", "list", "--state", "failed", "--json").json
    assert (failed["run_id"], failed["stage"], failed["state"], failed["attempt"]) == (run_id, "gate", "failed", 1)
    assert failed["error"].startswith("step 'gate' (row 0): ValueError: the gate is closed")
    assert [job["stage"] for job in cli("jobs", "list", "--run", run_id[:-1], "--json").json] == ["gate", "lines"]
    assert cli("jobs", "list", "--queue", "default", "--json").json == []
    table = cli("jobs", "list", "--state", "failed").out.splitlines()
    assert table[0].split() == ["job", "run", "stage", "state", "attempt", "queue", "error"]
    assert table[1].split()[:4] == [str(failed["job"]), run_id, "gate/0", "failed"]

    said = cli("jobs", "show", str(failed["job"])).out
    assert "state       failed\n" in said
    assert said.endswith(f"\nto try again: sage jobs redrive {failed['job']}\n")
    shown = cli("jobs", "show", str(failed["job"]), "--json").json
    assert [(each["attempt"], each["outcome"]) for each in shown["attempts"]] == [(1, "failed")]

    (cli.cwd / "key").write_text("")
    again = cli("jobs", "redrive", str(failed["job"]), "--json")
    assert (again.code, again.json["run_id"], again.json["status"]) == (0, run_id, "succeeded")
    assert cli("jobs", "list", "--state", "failed", "--json").json == []


def test_what_cannot_be_redriven_says_why(cli: Cli) -> None:
    said = cli("jobs", "redrive")
    assert (said.code, said.err.splitlines()[0]) == (2, "Error: Name a job or a run, and not both.")
    assert cli("jobs", "show", "17").err.startswith("Error: No job has the id 17: there are no runs in ")
    run_id = a_run(cli)
    assert "No job has the id 999.\n  help: see: sage jobs list" in cli("jobs", "show", "999").err
    job = cli("jobs", "list", "--json").json[0]["job"]
    assert f"Job {job} is done: nothing in it failed." in cli("jobs", "redrive", str(job)).err
    assert f"Nothing failed in run {run_id} (succeeded)." in cli("jobs", "redrive", "--run", run_id).err


def test_the_skipped_rows_of_a_run_are_tried_again(cli: Cli) -> None:
    run_id = a_run(cli, GATE + 'on_error = "skip"\n', "gate.toml")
    assert cli("runs", "show", run_id, "--json").json["status"] == "partial"
    (cli.cwd / "key").write_text("")
    again = cli("runs", "redrive", run_id, "--json")
    assert again.code == 0
    assert again.json["outputs"] == {"gate": ["line 0", "line 1", "line 2"]}
    assert "errors" not in again.json


def test_a_job_is_cancelled_by_its_number(cli: Cli) -> None:
    assert cli("jobs", "cancel", "17").err.startswith("Error: No job has the id 17: there are no runs in ")
    run_id = a_run(cli, GATE + 'on_error = "skip"\n', "gate.toml")
    with JobStore.open(f"sqlite:///{cli.home}/project/sage.db") as store:
        store.resume_run(run_id)
        (gate,) = [job for job in store.jobs(run_id) if job.stage == "gate"]
        assert f"Job {gate.id} is done: only ready and running jobs" in cli("jobs", "cancel", str(gate.id)).err
        with store.transaction() as tx:
            tx.forget_results([gate.result_key or ""])
        store.resume_run(run_id)
    said = cli("jobs", "cancel", str(gate.id))
    assert said.err == ""
    assert (said.code, said.out) == (0, f"job {gate.id} of run {run_id}: cancelled; 3 rows skipped\n")
    # It was the last one, and nobody drives the run: so it has ended.
    run = cli("runs", "show", run_id, "--json").json
    assert (run["status"], {each["message"] for each in run["failures"]}) == (
        "partial",
        {"JobCancelled: its job was cancelled"},
    )
