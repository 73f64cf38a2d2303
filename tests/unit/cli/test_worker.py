"""Tests of sage_core.cli.worker."""

from __future__ import annotations

import pytest

from sage_core.kernel.runtime import launch
from tests.unit.cli.conftest import Cli


def test_it_leaves_when_there_is_nothing_to_do_and_says_so(cli: Cli) -> None:
    said = cli("worker", "--until-idle", "50ms", "--queue", "b", "--queue", "a", "--queue", "b", "--node", "n1")
    assert said.code == 0
    assert said.out == (
        "queue b: 0 workers started, 0 died\n"
        "queue a: 0 workers started, 0 died\n"
        "node n1: left, because there was nothing to do\n"
    )


def test_json_names_the_queues_of_the_project(cli: Cli) -> None:
    (cli.cwd / "sage.toml").write_text('[queues.nightly]\nmax = 1\n[queues.default]\n[cluster]\nnode = "n2"\n')
    said = cli("worker", "--until-idle", "50ms", "--json")
    assert said.json == {
        "node": "n2",
        "reason": "idle",
        "error": "",
        "queues": {name: {"started": 0, "died": 0, "error": ""} for name in ("default", "nightly")},
    }


def test_without_queues_it_serves_the_default_one(cli: Cli) -> None:
    assert list(cli("worker", "--until-idle", "50ms", "--json").json["queues"]) == ["default"]


@pytest.mark.parametrize(
    ("option", "value", "problem"),
    [
        ("--max-jobs", "0", "0 is not in the range x>=1"),
        ("--until-idle", "60", "'60' is not a duration"),
        ("--until-idle", "soon", "'soon' is not a duration"),
        ("--grace", "-1s", "'-1s' is not a duration"),
    ],
)
def test_a_value_that_cannot_be_meant_is_refused(cli: Cli, option: str, value: str, problem: str) -> None:
    said = cli("worker", option, value)
    assert said.code == 2
    assert problem in said.err


def test_a_queue_that_is_served_already_is_refused(cli: Cli) -> None:
    with launch.find_project(cli.cwd).open_store() as store, store.transaction() as tx:
        assert tx.take_spawn(node="n1", queue="default", holder="another", lease_ms=60_000)
    said = cli("worker", "--node", "n1", "--until-idle", "50ms")
    assert said.code == 2
    assert "Node 'n1' serves queue 'default' already." in said.err


def test_help_states_grace_and_exit_codes(cli: Cli) -> None:
    text = cli("worker", "--help").out
    assert "Exit codes:" in text
    assert "--grace TIME" in text
    assert "--as" not in text
