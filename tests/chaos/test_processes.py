"""Workers that are killed or frozen at random, under load."""

from __future__ import annotations

import random
import signal
from pathlib import Path

from tests.chaos.history import History
from tests.chaos.ledger import Ledger
from tests.chaos.load import LEASE_MS, Load
from tests.chaos.processes import wait_for


def test_workers_killed_at_random(
    url: str, kind: str, tmp_path: Path, history: History, chance: random.Random, seconds: float, ledger: Ledger
) -> None:
    with Load(url, history, tmp_path, chance) as load:
        for number in load.rounds(seconds):
            victim = chance.choice(sorted(load.workers))
            with load.fault():
                load.fire(victim)
                # Every other death is noticed by a supervisor, the rest by the end of the lease.
                if number % 2:
                    load.store.release_worker(victim, "killed")
        ledger.settle(f"SIGKILL of a worker ({kind})", load.faults, load.finish(), load.times)


def test_workers_frozen_beyond_their_lease(
    url: str, kind: str, tmp_path: Path, history: History, chance: random.Random, seconds: float, ledger: Ledger
) -> None:
    with Load(url, history, tmp_path, chance) as load:
        for _ in load.rounds(seconds):
            victim = load.workers[chance.choice(sorted(load.workers))]
            with load.fault():
                victim.send_signal(signal.SIGSTOP)
                since = load.store.now()
                wait_for(lambda since=since: load.store.now() > since + 1.5 * LEASE_MS, "the lease is over")  # type: ignore[misc]
                victim.send_signal(signal.SIGCONT)
        ledger.settle(f"SIGSTOP of a worker beyond its lease ({kind})", load.faults, load.finish(), load.times)
