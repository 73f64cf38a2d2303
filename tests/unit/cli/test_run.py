"""Tests of sage_core.cli.run: `sage run` as people and programs meet it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.unit.cli.conftest import ROOT, Cli

LINES = """
[params.rows]
type = "int"
default = 3

[steps.lines]
use = "t.lines"
with = { n = "${params.rows}" }

[steps.upper]
use = "t.upper"
in = { line = "lines.line" }
"""

FAILING = """
[steps.lines]
use = "t.lines"
with = { n = 30 }

[steps.frail]
use = "t.fail"
in = { line = "lines.line" }
with = { but = "line 1" }
on_error = "skip"
"""

ASK = """
[params.question]
type = "string"

[models.small]
backend = "fake"

[steps.find]
use = "t.find"
in = { question = "params.question" }

[steps.say]
use = "t.say"
in = { question = "params.question" }
with = { model = "small" }
when = "len(find.passages) > 0"

[steps.silence]
use = "t.silence"
in = { question = "params.question" }
when = "len(find.passages) == 0"

[outputs]
answer = ["say.text", "silence.text"]
sources = "find.passages"
"""


def test_json_is_one_object_with_the_promised_keys(cli: Cli) -> None:
    said = cli("run", cli.write(LINES), "--json")
    assert (said.code, said.err) == (0, "")
    found = said.json
    assert list(found) == ["run_id", "status", "outputs", "steps", "tokens"]
    assert found["outputs"] == {"upper": ["LINE 0", "LINE 1", "LINE 2"]}
    assert found["status"] == "succeeded"
    upper = found["steps"]["upper"]
    seconds = upper.pop("seconds")
    assert isinstance(seconds, float)
    assert upper == {
        "rows_in": 3,
        "rows_out": 3,
        "absent": 0,
        "failed": 0,
        "partitions": {"total": 1, "reused": 0, "run": 1},
        "memo": {"computed": 0, "remembered": 0},
    }
    assert cli("run", "w.toml", "--json").json["steps"]["upper"]["partitions"] == {"total": 1, "reused": 1, "run": 0}


def test_results_go_to_stdout_and_everything_else_to_stderr(cli: Cli) -> None:
    first, again = cli("run", cli.write(LINES), "-p", "rows=1"), cli("run", "w.toml", "-p", "rows=1")
    assert first.out == again.out == 'upper:\n[\n  "LINE 0"\n]\n'
    assert first.err.startswith("run ")
    assert first.err.endswith("; ran lines, upper\n")
    assert again.err.endswith("; everything was reused\n")
    assert len(first.err.splitlines()) == 1, "no progress where nobody watches"


def test_an_answer_stands_below_its_passages_and_names_its_model(cli: Cli) -> None:
    said = cli("run", cli.write(ASK), "-p", "question=what is it")
    assert said.out == (
        "[1] a.md:3-9\n    first\n\n    lines\n\n[2] b.md:0-4\n    more\n\nanswer, by small:\nwhat  is  it\n"
    )
    assert said.err.splitlines()[0] == (
        "note: small wrote this; check it against the passages above; for better answers name a larger model in "
        "[models.small] of the workflow (sage models list)"
    )


def test_where_nothing_was_found_there_is_only_the_answer_that_says_so(cli: Cli) -> None:
    said = cli("run", cli.write(ASK), "-p", "question=nothing")
    assert said.out == "answer: The documents do not say.\n"
    assert len(said.err.splitlines()) == 1
    assert "ran find, silence" in said.err, "a branch that was not taken did not run"


def test_skipped_rows_are_listed_up_to_twenty(cli: Cli) -> None:
    said = cli("run", cli.write(FAILING))
    listed = [line for line in said.err.splitlines() if line.startswith("skipped: step")]
    assert said.code == 0
    # "line 1" and "line 10" to "line 19" go through: 19 of 30 fail, which is below the limit.
    assert len(listed) == 19
    assert listed[0] == "skipped: step 'frail', row 0: ValueError: cannot take 'line 0'"

    (cli.cwd / "w.toml").write_text((cli.cwd / "w.toml").read_text().replace("n = 30", "n = 50"))
    more = cli("run", "w.toml")
    run_id = more.err.splitlines()[-1].split()[1].rstrip(":")
    listed = [line for line in more.err.splitlines() if line.startswith("skipped: ")]
    assert len(listed) == 21
    assert listed[-1] == f"skipped: … and 19 more; all of them: sage runs show {run_id} --errors"
    assert len(cli("runs", "show", run_id, "--json").json["failures"]) == 39


def test_a_failed_run_says_how_to_go_on(cli: Cli) -> None:
    path = cli.write(FAILING.replace('on_error = "skip"\n', ""))
    said = cli("run", path)
    run_id = said.err.split()[1].rstrip(":")
    assert (said.code, said.out) == (1, "")
    assert f"Error: run {run_id} failed: step 'frail' (row 0): ValueError: cannot take 'line 0'\n" in said.err
    assert said.err.endswith(f"  help: mend the cause, then: sage runs resume {run_id}\n")

    found = cli("run", path, "--json")
    assert found.code == 1
    assert (found.json["status"], found.json["outputs"]) == ("failed", {})
    assert found.json["error"].startswith("step 'frail' (row 0): ValueError")


def test_workers_and_this_process_give_the_same(cli: Cli) -> None:
    path = cli.write(LINES + '\n[steps.pid]\nuse = "t.pid"\nin = { line = "lines.line" }\n')
    workers = cli("run", path, "--workers", "1", "--json").json["outputs"]
    inline = cli("run", path, "--inline", "--json").json["outputs"]
    assert set(inline["pid"]) == {os.getpid()}
    assert os.getpid() not in workers["pid"]
    assert inline["upper"] == workers["upper"]


WRONG = {
    "no file": (["nope.toml"], "nope.toml: no such file\n  help: name a workflow file, such as workflow.toml\n"),
    "a folder": (["."], ". is a folder\n  help: name the file in it, such as ./workflow.toml\n"),
    "no value": (["w.toml", "-p", "rows"], "--param 'rows' is not NAME=VALUE"),
    "twice": (["w.toml", "-p", "rows=1", "-p", "rows=2"], "--param rows is given twice\n"),
    "unknown": (["w.toml", "-p", "row=1"], "the workflow 'w' has no param 'row'. Did you mean 'rows'?"),
    "type": (["w.toml", "-p", "rows=many"], "param 'rows'"),
    "profile": (["w.toml", "--profile", "prod"], "no profile is named 'prod'"),
    "none": (["w.toml", "--workers", "0"], "Invalid value for '--workers': 0 is not in the range 1<=x<=64."),
    "letters": (["w.toml", "--workers", "two"], "'two' is not a valid integer range."),
    "both": (["w.toml", "--workers", "2", "--inline"], "--inline and --workers exclude each other"),
    "option": (["w.toml", "--prm", "rows=1"], "No such option '--prm'. Did you mean '--param'?"),
    "nothing": ([], "Missing argument 'WORKFLOW'."),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_is_wrong_is_said_and_nothing_is_run(cli: Cli, case: str) -> None:
    arguments, message = WRONG[case]
    cli.write(LINES)
    said = cli("run", *arguments)
    assert (said.code, said.out) == (2, "")
    assert " ".join(message.split()) in " ".join(said.err.split())
    assert "Traceback" not in said.err
    assert cli("runs", "list", "--json").json == []


def test_a_home_that_cannot_be_written_is_a_clear_error(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    (cli.cwd / "file").write_text("")
    monkeypatch.setenv("SAGE_HOME", str(cli.cwd / "file"))
    said = cli("run", cli.write(LINES))
    assert said.code == 1
    assert str(cli.cwd / "file") in said.err
    assert "  help: " in said.err
    assert "Traceback" not in said.err


COLD = """
import sys
from sage_core.builtins import default_host
from sage_core.cli.app import App
from sage_core.cli.main import run
from tests.unit.cli import run_operators
import sage_core.testing.engines as fake
code = run(sys.argv[1:], App(default_host({"run": run_operators, "fake": fake})))
heavy = ("pyarrow", "sqlalchemy", "alembic", "rich", "numpy", "onnxruntime", "tree_sitter")
print([name for name in heavy if name in sys.modules], file=sys.stderr)
sys.exit(code)
"""


def cold(cli: Cli, *arguments: str) -> subprocess.CompletedProcess[str]:
    """A command line in a fresh process; the last line of stderr lists heavy modules it has imported."""
    environ = {**os.environ, "PYTHONPATH": str(ROOT), "SAGE_HOME": str(cli.home)}
    return subprocess.run(
        [sys.executable, "-c", COLD, *arguments],
        cwd=cli.cwd,
        env=environ,
        capture_output=True,
        text=True,
        timeout=30,
        check=True,
    )


def test_a_run_with_everything_reused_imports_nothing_heavy(cli: Cli) -> None:
    cli("run", cli.write(LINES))
    done = cold(cli, "run", "w.toml")
    assert done.stderr.splitlines()[0].endswith("; everything was reused")
    assert done.stderr.splitlines()[1:] == ["[]"]
    assert done.stdout == cli("run", "w.toml").out


def test_nor_does_one_that_only_asks_a_model(cli: Cli) -> None:
    cli("run", cli.write(ASK), "-p", "question=what")
    done = cold(cli, "run", "w.toml", "-p", "question=what")
    assert "; ran say; reused find" in done.stderr
    assert done.stderr.splitlines()[-1] == "[]"


def test_the_file_may_lie_anywhere(cli: Cli, tmp_path: Path) -> None:
    cli.write(LINES)
    (tmp_path / "elsewhere").mkdir()
    (cli.cwd / "w.toml").rename(tmp_path / "elsewhere" / "w.toml")
    assert cli("run", "../elsewhere/w.toml", "--json").json["status"] == "succeeded"
    assert cli("run", tmp_path / "elsewhere" / "w.toml", "--json").json["status"] == "succeeded"


def test_a_run_kept_elsewhere_says_where_to_resume_it(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SAGE_HOME")
    folder = cli.cwd / "flows"
    folder.mkdir()
    path = cli.write(FAILING.replace('on_error = "skip"\n', ""), "flows/w.toml")
    failed = cli("run", path)
    run_id = failed.err.split()[1].rstrip(":")
    assert failed.err.endswith(f"note: run {run_id} is kept with its workflow; to resume it, first: cd flows\n")
    assert cli("runs", "resume", run_id).code == 2
    monkeypatch.chdir(folder)
    resumed = cli("runs", "resume", run_id)
    assert f"Error: run {run_id} failed: step 'frail' (row 0)" in resumed.err
    assert "note: " not in cli("run", "w.toml").err
