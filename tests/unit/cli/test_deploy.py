"""Tests of sage_core.cli.deploy: what is kept, and what is said of it."""

from __future__ import annotations

import re

import pytest

from tests.unit.cli.conftest import Cli
from tests.unit.kernel.runtime.schedule_operators import CRON, PLUGINS

STEPS = """
[params]
n = { type = "int", default = 2 }

[steps.lines]
use = "t.lines"
with = { n = "${params.n}" }
"""


@pytest.fixture
def cli(cli: Cli) -> Cli:
    cli.plugins |= {"triggers": PLUGINS["triggers"]}
    return cli


def test_a_deployment_is_told_with_its_schedules(cli: Cli) -> None:
    said = cli("deploy", cli.write(STEPS + CRON), "--queue", "slow")
    assert said.code == 0
    lines = said.out.splitlines()
    assert lines[0] == "deployed w, version 1, to queue slow"
    assert re.fullmatch(r"schedule w/1: \d{4}-\d\d-\d\dT\d\d:\d[05]:00\.000Z", lines[1])
    assert (
        said.err
        == "note: `sage tick` or a running `sage worker` fires them; to have it called: sage schedules install\n"
    )
    again = cli("deploy", cli.write(STEPS), "--param", "n=3")
    dropped = "removed 1 of its schedules, which the workflow does not have any more"
    assert again.out == f"deployed w, version 2, to queue default\n{dropped}\n"
    assert again.err == ""


def test_json_holds_all_of_it(cli: Cli) -> None:
    told = cli("deploy", cli.write(STEPS + CRON), "--name", "nightly", "--json").json
    assert list(told) == ["name", "workflow", "version", "queue", "schedules", "dropped", "warnings"]
    assert (told["name"], told["workflow"], told["version"], told["queue"]) == ("nightly", "w", 1, "default")
    assert [(each["id"], each["paused"]) for each in told["schedules"]] == [("nightly/1", False)]


@pytest.mark.parametrize(
    ("trigger", "message"),
    [
        ('schedule = "0 0 30 2 *"', "'0 0 30 2 *' never fires: no such month has day 30"),
        ('schedule = "0 0 * * *"\ntimezone = "Europe/Berln"', "no time zone is named 'Europe/Berln'"),
    ],
)
def test_an_impossible_schedule_is_not_deployed(cli: Cli, trigger: str, message: str) -> None:
    said = cli("deploy", cli.write(f"{STEPS}[[triggers.cron]]\n{trigger}\n"))
    assert said.code == 2
    assert said.err.startswith("w.toml:")
    assert message in said.err


def test_what_is_wrong_is_said_before_anything_is_kept(cli: Cli) -> None:
    name = cli.write(STEPS + CRON)
    assert "no param 'm'" in cli("deploy", name, "--param", "m=1").err
    cli.plugins.pop("triggers")
    said = cli("deploy", name)
    assert (said.code, said.err) == (
        2,
        "Error: No plugin fires 'cron' triggers.\n  help: sage plugins install sage-cron\n",
    )
    assert "No deployment is known" in cli("invoke", "w").err


def test_it_is_removed_by_name_or_by_file(cli: Cli) -> None:
    name = cli.write(STEPS)
    cli("deploy", name)
    assert cli("deploy", "w", "--remove").out == "removed w\n"
    cli("deploy", name)
    assert cli("deploy", name, "--remove", "--json").json == {"name": "w", "removed": True}
    said = cli("deploy", "w", "--remove")
    assert said.code == 2
    assert said.err.startswith("Error: No deployment is named 'w'.")
