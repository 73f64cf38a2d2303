"""Tests of sage_core.cli.runs: what has run here, and how it goes on."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from sage_core.cli.stored import ELSEWHERE
from tests.unit.cli.conftest import Cli
from tests.unit.cli.test_run import LINES

GATE = """
[steps.lines]
use = "t.lines"

[steps.gate]
use = "t.gate"
in = { line = "lines.line" }
with = { key = "key" }
"""


def a_run(cli: Cli, text: str = LINES, name: str = "w.toml", code: int = 0) -> str:
    said = cli("run", cli.write(text, name), "--json")
    assert said.code == code
    return str(said.json["run_id"])


def test_the_list_is_newest_first(cli: Cli) -> None:
    first, failed, last = a_run(cli), a_run(cli, GATE, "gate.toml", code=1), a_run(cli)
    listed = cli("runs", "list", "--json").json
    assert [run["run_id"] for run in listed] == [last, failed, first]
    assert [(run["status"], run["workflow"]) for run in listed] == [
        ("succeeded", "w"),
        ("failed", "gate"),
        ("succeeded", "w"),
    ]
    assert all(list(run) == ["run_id", "status", "workflow", "created_at"] for run in listed)
    assert all(re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", run["created_at"]) for run in listed)
    assert [run["run_id"] for run in cli("runs", "list", "--limit", "1", "--json").json] == [last]
    assert [run["run_id"] for run in cli("runs", "list", "--status", "failed", "--json").json] == [failed]

    table = cli("runs", "list").out.splitlines()
    assert table[0].split() == ["run", "status", "workflow", "created"]
    assert [line.split()[0] for line in table[1:]] == [last, failed, first]


def test_an_empty_list_says_on_stderr_where_it_looked_and_what_to_do(cli: Cli) -> None:
    way_out = f"  help: {ELSEWHERE}\n"
    place = cli.home / "project"
    said = cli("runs", "list")
    assert (said.code, said.out, said.err) == (0, "", f"No runs in {place}\n{way_out}")
    assert cli("runs", "list", "--json").json == []
    a_run(cli)
    assert cli("runs", "list", "--status", "failed").err == f"No runs with status failed in {place}\n{way_out}"
    (cli.cwd / "sage.toml").write_text('[store]\nurl = "sqlite:///other.db"\n')
    assert cli("runs", "list").err.startswith(f"No runs in sqlite:///{cli.cwd}/other.db\n")


def test_the_status_to_list_is_one_there_is(cli: Cli) -> None:
    wrong = cli("runs", "list", "--status", "broken")
    assert wrong.code == 2
    assert "'broken' is not one of 'queued', 'running', 'succeeded', 'partial', 'failed', 'cancelled'" in wrong.err


def test_show_tells_steps_errors_and_the_way_on(cli: Cli) -> None:
    run_id = a_run(cli, GATE, "gate.toml", code=1)
    said = cli("runs", "show", run_id)
    assert said.code == 0
    assert said.err == ""
    assert f"run       {run_id}\nworkflow  gate\nstatus    failed\nstarted   2" in said.out
    assert "jobs      1 done, 1 failed\n" in said.out
    table = said.out.split("\n\n")[1]
    rows = {line.split()[0]: line.split()[1:] for line in table.splitlines()[1:]}
    assert rows["lines"][:4] == ["1", "3", "0", "0"]
    assert " ".join(rows["gate"][5:]) == "1: 1 left"
    assert "error: step 'gate' (row 0): ValueError: the gate is closed" in said.out
    assert said.out.endswith(f"\nto continue: sage runs resume {run_id}\n")

    shown = cli("runs", "show", run_id[:-2], "--json").json
    assert (shown["run_id"], shown["status"], shown["jobs"]) == (run_id, "failed", {"done": 1, "failed": 1})


def test_show_draws_what_happened_when(cli: Cli) -> None:
    run_id = a_run(cli, GATE, "gate.toml", code=1)
    *_, lines, gate, legend = cli("runs", "show", run_id).out.split("\n\n")[2].splitlines()
    assert re.fullmatch(r"lines +·*█+ +\d+ ms", lines)
    assert re.fullmatch(r"gate +·*x+ +\d+ ms, 1 of 1 attempts failed", gate)
    assert legend.split() == ["·", "waiting", "█", "done", "x", "failed"]
    assert "gate[0]" in cli("runs", "show", run_id, "--jobs").out

    figures = cli("runs", "show", run_id, "--json").json["timeline"]
    assert [(line["name"], line["jobs"], line["attempts"], line["failed"]) for line in figures] == [
        ("lines", 1, 1, 0),
        ("gate", 1, 1, 1),
    ]
    (done, failed) = cli("runs", "show", run_id, "--jobs", "--json").json["timeline"]
    assert [span["kind"] for span in done["spans"]][-1:] == ["done"]
    assert [(span["kind"], span["fence"]) for span in failed["spans"]][-1:] == [("failed", 1)]


def test_a_run_that_is_over_is_not_watched_on(cli: Cli) -> None:
    run_id = a_run(cli)
    said = cli("runs", "show", run_id, "--watch", "--json")
    assert said.code == 0
    assert said.out.count("\n") == 1
    assert said.json["status"] == "succeeded"


def test_show_lists_skipped_rows(cli: Cli) -> None:
    text = LINES.replace("t.upper", "t.fail") + 'on_error = "skip"\n'
    run_id = a_run(cli, text)
    said = cli("runs", "show", run_id)
    assert "skipped: step 'upper', row 2: ValueError: cannot take 'line 2'\n" in said.out
    assert "status    partial\n" in said.out
    listed = [line.split() for line in cli("runs", "show", run_id, "--errors").out.splitlines()]
    assert listed[:4] == [["step", "error", "rows"], ["upper", "ValueError", "3"], [], ["step", "row", "error"]]
    assert [line[:3] for line in listed[4:]] == [["upper", row, "ValueError:"] for row in "012"]
    assert cli("runs", "show", a_run(cli), "--errors").out.endswith(" failed.\n")


def test_resume_goes_on_and_prints_what_run_prints(cli: Cli) -> None:
    run_id = a_run(cli, GATE, "gate.toml", code=1)
    still = cli("runs", "resume", run_id)
    assert still.code == 1
    assert f"Error: run {run_id} failed: step 'gate' (row 0): ValueError: the gate is closed" in still.err

    (cli.cwd / "key").write_text("")
    resumed = cli("runs", "resume", run_id, "--json")
    assert resumed.code == 0
    found = resumed.json
    assert list(found) == ["run_id", "status", "outputs", "steps", "tokens"]
    assert (found["run_id"], found["status"]) == (run_id, "succeeded")
    assert found["outputs"] == {"gate": ["line 0", "line 1", "line 2"]}
    assert found["steps"]["lines"]["partitions"] == {"total": 1, "reused": 1, "run": 0}
    assert found["steps"]["gate"]["partitions"] == {"total": 1, "reused": 0, "run": 1}
    assert "started   2" in (shown := cli("runs", "show", run_id).out)
    assert ", session 3\n" in shown

    assert cli("runs", "resume", run_id).out == 'gate:\n[\n  "line 0",\n  "line 1",\n  "line 2"\n]\n'


def test_cancel_says_when_there_was_nothing_to_stop(cli: Cli) -> None:
    run_id = a_run(cli)
    said = cli("runs", "cancel", run_id)
    assert (said.code, said.out) == (0, f"run {run_id}: was over already (succeeded)\n")
    assert cli("runs", "cancel", run_id, "--json").json == {
        "run_id": run_id,
        "status": "succeeded",
        "cancelled": False,
    }


@pytest.mark.parametrize("command", [("list",), ("show", "r1"), ("cancel", "r1"), ("resume", "r1")], ids=" ".join)
def test_looking_for_runs_makes_no_project(cli: Cli, command: tuple[str, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SAGE_HOME")
    said = cli("runs", *command)
    assert f" in {cli.cwd / '.sage'}\n  help: runs are kept in the project of their workflow" in said.err
    assert said.code == (0 if command == ("list",) else 2)
    assert list(cli.cwd.iterdir()) == []


@pytest.mark.parametrize("command", ["show", "cancel", "resume"])
def test_an_unknown_run_is_refused(cli: Cli, command: str) -> None:
    run_id = a_run(cli)
    said = cli("runs", command, "never")
    assert (said.code, said.out) == (2, "")
    assert said.err == "Error: No run has the id 'never'.\n  help: see: sage runs list\n"
    misspelt = run_id[:-1] + ("x" if run_id[-1] != "x" else "y")
    assert f"Did you mean '{run_id}'?" in cli("runs", command, misspelt).err


def test_an_unknown_command_is_refused_with_a_suggestion(cli: Cli) -> None:
    said = cli("runs", "lst")
    assert said.code == 2
    assert "No such command 'lst'. Did you mean 'list'?" in said.err


def test_resume_takes_one_way_of_running(cli: Cli) -> None:
    said = cli("runs", "resume", a_run(cli), "--inline", "--workers", "2")
    assert said.code == 2
    assert "--inline and --workers exclude each other" in said.err


def test_a_resume_over_a_changed_workflow_shows_the_difference_and_asks(cli: Cli) -> None:
    run_id = a_run(cli, GATE, "gate.toml", code=1)
    (cli.cwd / "key").write_text("")
    cli.write(GATE + 'on_error = "skip"\n[steps.more]\nuse = "t.lines"\n', "gate.toml")
    refused = cli("runs", "resume", run_id)
    assert refused.code == 2
    assert refused.err == (
        f"Since run {run_id} was started:\n"
        "  step 'more' added\n"
        "  step 'gate' changed: on_error\n"
        "  outputs changed\n"
        f"Error: Run {run_id} was started with another workflow or other code than there is now.\n"
        "  help: to go on with the plan it was started with, add --yes; to start anew: sage run WORKFLOW\n"
    )
    assert cli("runs", "show", run_id, "--json").json["status"] == "failed"
    gone_on = cli("runs", "resume", run_id, "--yes", "--json")
    assert (gone_on.code, gone_on.json["status"]) == (0, "succeeded")
    assert list(gone_on.json["steps"]) == ["lines", "gate"]
    assert "  step 'more' added\n" in gone_on.err


def test_a_fork_computes_a_step_anew(cli: Cli) -> None:
    run_id = a_run(cli)
    forked = cli("runs", "fork", run_id, "--from", "upper", "--json").json
    assert forked["run_id"] != run_id
    assert forked["steps"]["lines"]["partitions"] == {"total": 1, "reused": 1, "run": 0}
    assert forked["steps"]["upper"]["partitions"] == {"total": 1, "reused": 0, "run": 1}
    wrong = cli("runs", "fork", run_id, "--from", "uper")
    assert (wrong.code, wrong.err.partition(" Known")[0]) == (
        2,
        "Error: No step is named 'uper'. Did you mean 'upper'?",
    )


def test_prune_counts_and_removes_ended_runs(cli: Cli) -> None:
    said = cli("runs", "prune")
    assert (said.code, said.err.splitlines()[0][:38]) == (2, "Error: No run was ever started here: t")
    a_run(cli)
    said = cli("runs", "prune")
    assert (said.code, said.err) == (
        2,
        "Error: Nothing says how long runs are kept.\n"
        "  help: add --older-than 30d, or set [retention] runs_days in sage.toml\n",
    )
    assert cli("runs", "prune", "--older-than", "30d").out == "removed: nothing\n"
    counted = cli("runs", "prune", "--older-than", "0s", "--dry-run", "--json").json
    assert (counted["dry_run"], counted["runs"]) == (True, 1)
    assert len(cli("runs", "list", "--json").json) == 1
    assert cli("runs", "prune", "--older-than", "0s").out.startswith("removed: 1 runs")
    assert cli("runs", "list", "--json").json == []
    (cli.cwd / "sage.toml").write_text("[retention]\nruns_days = 0\n")
    a_run(cli)
    assert cli("runs", "prune", "--json").json["runs"] == 1


def test_a_relative_store_is_the_same_from_every_folder(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    (cli.cwd / "sage.toml").write_text('[store]\nurl = "sqlite:///jobs.db"\n')
    (cli.cwd / "sub").mkdir()
    run_id = a_run(cli)
    monkeypatch.chdir(cli.cwd / "sub")
    assert [run["run_id"] for run in cli("runs", "list", "--json").json] == [run_id]
    assert [path.relative_to(cli.cwd) for path in cli.cwd.rglob("jobs.db")] == [Path("jobs.db")]
