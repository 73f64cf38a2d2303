"""Tests of sage_core.cli.invoke: runs are queued as asked; tests/acceptance/test_schedules.py runs them."""

from __future__ import annotations

import pytest

from tests.unit.cli.conftest import Cli
from tests.unit.cli.test_deploy import STEPS


@pytest.fixture
def cli(cli: Cli) -> Cli:
    assert cli("deploy", cli.write(STEPS), "--queue", "slow").code == 0
    return cli


def test_a_run_is_queued_and_its_id_is_printed(cli: Cli) -> None:
    said = cli("invoke", "w", "--no-spawn")
    assert (said.code, said.err) == (0, "")
    (run,) = cli("runs", "list", "--json").json
    assert (said.out, run["status"], run["workflow"]) == (f"{run['run_id']}\n", "queued", "w")


def test_json_tells_where_it_waits(cli: Cli) -> None:
    told = cli("invoke", "w", "--param", "n=5", "--queue", "fast", "--priority", "2", "--no-spawn", "--json").json
    assert {**told, "run_id": ""} == {"run_id": "", "deployment": "w", "queue": "fast", "status": "queued"}


def test_a_key_is_heeded(cli: Cli) -> None:
    once = ["invoke", "w", "--idempotency-key", "today", "--no-spawn"]
    first = cli(*once).out
    refused = cli(*once)
    assert refused.code == 2
    assert refused.err.startswith(f"Error: Run {first.strip()} (queued) has the idempotency key 'today' already.")
    assert cli(*once, "--on-conflict", "ignore").out == first


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["x"], "No deployment is named 'x'. Known: w. Make one: sage deploy WORKFLOW"),
        (["w", "--param", "n=many"], "param 'n': 'many' is not an integer"),
        (["w", "--param", "m=1"], "the workflow 'w' has no param 'm'."),
        (["w", "--delay", "10"], "'10' is not a duration"),
        (["w", "--param", "n=99999999999999999999"], "param 'n': 99999999999999999999 has more than 64 bits"),
        (["w", "--priority", "99999999999999999999"], "99999999999999999999 is not in the range"),
        (["w", "--queue", "run:w"], "'run:w' cannot name a queue"),
        (["w", "--on-conflict", "wait"], "'wait' is not one of"),
    ],
)
def test_what_cannot_be_queued_is_explained(cli: Cli, arguments: list[str], message: str) -> None:
    said = cli("invoke", *arguments, "--no-spawn")
    assert said.code == 2
    assert message in said.err
    assert cli("runs", "list", "--json").json == []


def test_a_delayed_run_starts_no_workers_by_itself(cli: Cli) -> None:
    assert cli("invoke", "w", "--delay", "1h").code == 0
    assert not (cli.home / "project" / "logs" / "workers.log").exists()
