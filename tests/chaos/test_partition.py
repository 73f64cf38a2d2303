"""A machine that is cut off from the database and from the other machine for longer than a lease, and comes back."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from subprocess import PIPE

import pytest

from sage_core.platform.store import JobStore
from tests.chaos.ledger import Ledger
from tests.chaos.machines import Machine
from tests.chaos.processes import ROOT, wait_for
from tests.chaos.server import Server
from tests.chaos.test_supervisors import LEASE, NEEDS, ROWS, finish, judge, worked, workflow


class Cable:
    """A network of its own for a machine, and the cable from there to here."""

    def __init__(self) -> None:
        # Of one that was removed the names and the address are free a little later.
        number, mark = os.urandom(1)[0], os.urandom(4).hex()
        self.network = f"sage-chaos-{mark}"
        self.address = f"10.213.{number}.1"
        self._here, there = f"sage{mark}a", f"sage{mark}b"
        self._ip("netns", "add", self.network)
        self._ip("link", "add", self._here, "type", "veth", "peer", "name", there, "netns", self.network)
        self._ip("address", "add", f"{self.address}/24", "dev", self._here)
        self._ip("-n", self.network, "address", "add", f"{self.address[:-1]}2/24", "dev", there)
        self._ends = {"near": ["link", "set", self._here], "far": ["-n", self.network, "link", "set", there]}
        for end in self._ends:
            self.plug(end, "up")

    def plug(self, end: str, state: str) -> None:
        """Pull the cable out at one end, or put it back.

        At the far end the machine sees that it has no network; at the near end what it sends is merely never answered.
        """
        self._ip(*self._ends[end], state)

    def remove(self) -> None:
        """Take both away."""
        self._ip("link", "delete", self._here)
        self._ip("netns", "delete", self.network)

    def _ip(self, *arguments: str) -> None:
        subprocess.run(["ip", *arguments], check=True)


@pytest.fixture
def cable(pytestconfig: pytest.Config) -> Iterator[Cable]:
    if not pytestconfig.getoption("--long"):
        pytest.skip("part of the long form: only root may lay cables")
    cable = Cable()
    yield cable
    cable.remove()


@pytest.fixture
def server(cable: Cable) -> Iterator[Server]:
    server = Server()
    server.stop("fast")
    server.listen(cable.address)
    yield server
    # The wheel stops what it has started itself.
    server.stop("immediate")
    server.close()


@pytest.mark.timeout(300)
@pytest.mark.parametrize("kind", ["postgres"])
@pytest.mark.parametrize(("end", "silence"), [("far", 3 * LEASE), ("near", 12 * LEASE)])
def test_a_machine_that_is_cut_off_and_comes_back(
    cable: Cable, server: Server, kind: str, end: str, silence: float, tmp_path: Path, ledger: Ledger
) -> None:
    near = server.schema_url(tmp_path)
    far = f"postgresql://postgres@{cable.address}/postgres?{near.partition('?')[2].partition('&')[2]}"
    left = Machine(tmp_path, "left", near, lease=LEASE)
    right = Machine(tmp_path, "right", far, lease=LEASE, network=cable.network)
    (left.folder / "workflow.toml").write_text(workflow(tmp_path, "any", "left", "right"))
    try:
        left.sage("deploy", "workflow.toml")
        left.serve()
        right.serve()
        with JobStore.open(near) as store:
            wait_for(lambda: len(store.nodes()) == 2, "both machines are announced")
            run = left.sage("invoke", "machines", "--no-spawn")["run_id"]
            wait_for(lambda: any(row[2] == "right" for row in worked(tmp_path)), "the far machine is at work")
            cable.plug(end, "down")
            cut = store.now()

            def done(*stages: str) -> bool:
                jobs = [job for job in store.jobs(run) if job.stage in stages]
                return bool(jobs) and all(job.state == "done" for job in jobs)

            wait_for(lambda: done("any", "left"), "the near machine does what anybody can do")
            wait_for(lambda: store.now() > cut + silence * 1000, "it was cut off for that long")
            assert not done("right")
            assert store.run(run).status == "running"
            cable.plug(end, "up")
            since = time.monotonic()
            wait_for(lambda: store.run(run).status != "running", "the run ends", seconds=150)
            took = time.monotonic() - since
            right.leave()
            finish(left, store, run)
            rows = {(step, int(row)) for step, row, _, _ in worked(tmp_path)}
            assert rows == {(step, row) for step in NEEDS for row in range(ROWS)}
            ledger.settle(f"machine cut off for {silence:g} s ({kind})", 1, judge(store, run), [took])
    finally:
        left.close()
        right.close()


@pytest.mark.parametrize("kind", ["postgres"])
def test_a_database_that_falls_silent_is_unavailable(
    cable: Cable, server: Server, kind: str, tmp_path: Path, ledger: Ledger
) -> None:
    """A question that is never answered, as when the database's machine loses its power, ends like a refused one."""
    near = server.schema_url(tmp_path)
    far = f"postgresql://postgres@{cable.address}/postgres?{near.partition('?')[2].partition('&')[2]}"
    asks = (
        "import sys; from sage_core.platform.store import JobStore; store = JobStore.open(sys.argv[1]);"
        " print('opened', flush=True); sys.stdin.readline(); store.runs()"
    )
    command = ["ip", "netns", "exec", cable.network, sys.executable, "-c", asks, far]
    with subprocess.Popen(command, cwd=ROOT, stdin=PIPE, stdout=PIPE, stderr=PIPE, text=True) as client:
        assert client.stdout is not None
        assert client.stdout.readline() == "opened\n"
        cable.plug("near", "down")
        since = time.monotonic()
        _, error = client.communicate("\n")
        assert "StoreUnavailable: " in error
    with JobStore.open(near) as store:
        ledger.settle(f"database falls silent ({kind})", 1, judge(store, "none"), [time.monotonic() - since])
