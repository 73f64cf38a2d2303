"""Tests of sage_core.cli.nodes: which machines there are, and what is in use of them."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from sage_core import Needs, Node
from sage_core.cli.nodes import describe_nodes
from sage_core.kernel.scheduler.ledger import fits, needs_text
from sage_core.platform.processes import this_process
from sage_core.platform.records import NewJob, NewRun
from sage_core.platform.store import JobStore
from tests.postgres import schema_url
from tests.unit.cli.conftest import Cli

HOUR = 3_600_000
NODE = Node(name="big", cpu=8, memory=16 << 30, gpu=2, labels=("gpu", "ssd"), used_gpu=1, models=("minilm",))


def announce(store: JobStore, name: str, *, off: int = 0, supervisor: str = "") -> bool:
    with store.transaction() as tx:
        return tx.announce_node(
            name=name,
            supervisor=supervisor or name,
            host=f"host-of-{name}",
            body=msgspec.json.encode(msgspec.structs.replace(NODE, name=name)).decode(),
            node_ms=tx.now() + off,
            silence_ms=HOUR,
        )


def a_job_on(store: JobStore, node: str) -> None:
    with store.transaction() as tx:
        tx.insert_run(NewRun(id="run", workflow="flow", status="running"))
        tx.insert_jobs([NewJob(run_id="run", stage="s", needs=needs_text(Needs(cpu=1.5, memory=2 << 30)))])
    store.register_worker(msgspec.structs.replace(this_process("worker"), node=node))
    assert store.claim("w", lease_ms=HOUR, node=node, fits=fits(NODE))


def test_nobody_was_announced(cli: Cli) -> None:
    said = cli("nodes")
    assert (said.code, said.out) == (0, "")
    assert said.err == "No node was ever announced.\n  help: start one: sage worker\n"
    assert cli("nodes", "--json").json == []
    assert not (cli.home / "project").exists(), "looking makes no project"


def test_a_node_is_shown_with_what_is_in_use(cli: Cli) -> None:
    (cli.home / "project").mkdir(parents=True)
    with JobStore.open(f"sqlite:///{cli.home / 'project' / 'sage.db'}") as store:
        announce(store, "big")
        announce(store, "gone")
        with store.transaction() as tx:
            tx.stop_node(name="gone", supervisor="gone")
        a_job_on(store, "big")
    big, gone = cli("nodes", "--json").json
    assert (big["state"], gone["state"]) == ("live", "stopped")
    assert (big["used_cpu"], big["used_memory"], big["used_gpu"]) == (1.5, 2 << 30, 1)
    assert (big["cpu"], big["memory"], big["gpu"], big["labels"], big["models"]) == (
        *(8, 16 << 30, 2),
        ["gpu", "ssd"],
        ["minilm"],
    )
    assert (big["jobs"], big["workers"], gone["jobs"], gone["workers"]) == (1, 1, 0, 0)
    said = cli("nodes")
    assert said.err == ""
    head, first, second = said.out.splitlines()
    assert head.split()[:4] == ["node", "state", "since", "cpu"]
    assert (first.split()[3], first.split()[4]) == ("1.5/8", "2.0/16.0")
    assert second.split()[:2] == ["gone", "stopped"]


@pytest.mark.parametrize("database", ["sqlite", "postgresql"])
def test_a_clock_that_is_an_hour_off_is_told_and_harms_nothing(cli: Cli, tmp_path: Path, database: str) -> None:
    url = f"sqlite:///{tmp_path / 'sage.db'}" if database == "sqlite" else schema_url(tmp_path)
    (cli.cwd / "sage.toml").write_text(f'[store]\nurl = "{url}"\n')
    with JobStore.open(url) as store:
        announce(store, "early", off=HOUR)
        announce(store, "late", off=-HOUR)
        announce(store, "right", off=300)
        # Leases, patience and silence go by the database's clock: the node keeps its job, and is not silent.
        a_job_on(store, "late")
        assert store.claim("other", lease_ms=HOUR, node="early", fits=fits(NODE)) == []
        found = describe_nodes(store, silence_ms=60_000)
    assert [node["state"] for node in found] == ["live"] * 3
    assert [abs(abs(node["clock_ms"]) - HOUR) < 60_000 for node in found] == [True, True, False]
    said = cli("nodes")
    assert said.code == 0
    assert said.err.splitlines() == [
        f"warning: the clock of {name} is 3600 s {way} the database's. Jobs and schedules go by the database's clock "
        "alone; the times in that machine's logs are off."
        for name, way in (("early", "ahead of"), ("late", "behind"))
    ]


def test_a_node_that_was_not_heard_of_is_silent(tmp_path: Path) -> None:
    with JobStore.open(f"sqlite:///{tmp_path / 'sage.db'}") as store:
        announce(store, "big")
        (node,) = describe_nodes(store, silence_ms=-1)
        assert node["state"] == "silent"
        assert not announce(store, "big", supervisor="another"), "and yet its name is taken while it may come back"
