"""Tests of sage_core.cli.check."""

from __future__ import annotations

from collections.abc import Mapping

from sage_core import Event, Fleet, Idle, Queued, Work, hookimpl
from tests.unit.cli.conftest import Cli
from tests.unit.cli.test_run import ASK, LINES, cold


class Turns:
    """A policy that decides when it is asked."""

    def submit(self, work: Work, fleet: Fleet, now: int) -> Queued:
        return Queued()

    def next(self, fleet: Fleet, now: int) -> Idle:
        return Idle()

    def observe(self, event: Event, now: int) -> None:
        return None


class TurnsPlugin:
    @hookimpl
    def sage_schedulers(self) -> Mapping[str, str]:
        return {"turns": f"{__name__}:Turns"}


def test_a_valid_file_needs_no_parameter_values(cli: Cli) -> None:
    path = cli.write(ASK)
    said = cli("check", path)
    assert (said.code, said.out, said.err) == (0, "w.toml: valid, 3 steps\n", "")
    assert cli("check", path, "--json").json == {
        "valid": True,
        "diagnostics": [],
        "warnings": [],
        "steps": ["find", "say", "silence"],
    }


def test_every_error_has_its_place_and_a_way_out(cli: Cli) -> None:
    path = cli.write(LINES.replace("t.upper", "t.uper").replace("t.lines", "t.line"))
    said = cli("check", path)
    assert (said.code, said.out) == (2, "")
    assert "w.toml:9:7: no operator is named 't.line'" in said.err
    assert "w.toml:13:7: no operator is named 't.uper'" in said.err
    assert "Did you mean 't.upper'?" in said.err
    assert "^^^^^^^^" in said.err
    assert said.err.endswith("\n2 errors\n")

    found = cli("check", path, "--json")
    assert (found.code, found.err) == (2, "")
    assert found.json["valid"] is False
    assert [line.split(": ")[0] for line in found.json["diagnostics"]] == ["w.toml:9:7", "w.toml:13:7"]


def test_profiles_are_checked_as_they_are_named(cli: Cli) -> None:
    path = cli.write(LINES + "\n[profile.small.steps.lines.with]\nn = 1\n[profile.odd.steps.lines.with]\nm = 1\n")
    assert cli("check", path, "--profile", "small").code == 0
    wrong = cli("check", path, "--profile", "odd")
    assert wrong.code == 2
    unknown = cli("check", path, "--profile", "smal")
    assert unknown.code == 2
    assert "Did you mean 'small'?" in unknown.err


def test_a_missing_file_is_said(cli: Cli) -> None:
    said = cli("check", "nope.toml")
    assert (said.code, said.out) == (2, "")
    assert said.err == "Error: nope.toml: no such file\n  help: name a workflow file, such as workflow.toml\n"


def test_it_imports_nothing_heavy(cli: Cli) -> None:
    cli.write(LINES)
    assert cold(cli, "check", "w.toml").stderr == "[]\n"


def test_what_no_node_can_run_is_a_warning_here_and_refused_by_plan_and_run(cli: Cli) -> None:
    path = cli.write(LINES.replace('use = "t.upper"', 'use = "t.upper"\nneeds = { gpu = 1, labels = ["ssd"] }'))
    (cli.cwd / "sage.toml").write_text('[cluster]\nnode = "here"\ngpu = 0\n')
    missing = "step 'upper' can run nowhere: node 'here' lacks gpu = 1 (it has none), label 'ssd'"
    said = cli("check", path)
    assert (said.code, said.err) == (0, f"warning: {missing}\n")
    assert cli("check", path, "--json").json["warnings"] == [missing]
    for command in ("plan", "run"):
        refused = cli(command, path)
        assert (refused.code, refused.out) == (2, "")
        assert refused.err.startswith(f"Error: {missing}\n  help: lower its needs, start a worker where it is met")
    # A database that cannot be reached keeps no file from being checked.
    (cli.cwd / "sage.toml").write_text(
        '[store]\nurl = "postgresql://nobody@127.0.0.1:1/none"\n[cluster]\nnode = "here"\n'
    )
    assert cli("check", path).code == 0


def test_a_policy_that_keeps_state_is_refused_for_jobs_and_those_that_can_rank_are_named(cli: Cli) -> None:
    cli.plugins["turns"] = TurnsPlugin()
    path = cli.write(LINES)
    (cli.cwd / "sage.toml").write_text('[scheduler]\njobs = "turns"\n')
    for command in ("check", "plan", "run"):
        said = cli(command, path)
        assert (said.code, said.out) == (2, "")
        assert said.err == (
            "Error: [scheduler] jobs: 'turns' decides at run time and cannot rank jobs, whose order is fixed when they "
            "are enqueued\n  help: these can: fifo, priority\n"
        )
    assert cli("runs", "list", "--json").json == []
