"""A SQLite file that somebody else keeps locked, and a disk that is full: work waits, and is not lost."""

from __future__ import annotations

import json
import random
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from sage_core.common.errors import StoreUnavailable
from sage_core.platform.sqlite import sqlite_path
from sage_core.platform.store import JobStore
from tests.chaos.history import History, Verdict, check
from tests.chaos.ledger import Ledger
from tests.chaos.load import Load
from tests.chaos.processes import ROOT, wait_for
from tests.chaos.work import Work, submit

pytestmark = pytest.mark.parametrize("kind", ["sqlite"])


def test_a_long_writer_under_load(
    url: str, kind: str, tmp_path: Path, history: History, chance: random.Random, seconds: float, ledger: Ledger
) -> None:
    with (
        Load(url, history, tmp_path, chance) as load,
        closing(sqlite3.connect(sqlite_path(url), isolation_level=None)) as other,
    ):
        for _ in load.rounds(seconds):
            with load.fault():
                other.execute("BEGIN IMMEDIATE")
                since = load.store.now()
                wait_for(lambda since=since: load.store.now() > since + 300, "others have waited")  # type: ignore[misc]
                other.execute("COMMIT")
        ledger.settle(f"long writer ({kind})", load.faults, load.finish(), load.times)


def test_a_writer_that_never_ends_is_no_lost_job(url: str, kind: str, history: History, ledger: Ledger) -> None:
    with JobStore.open(url) as store, closing(sqlite3.connect(sqlite_path(url), isolation_level=None)) as other:
        submit(store, "run", 1)
        work = Work(store, history, "mine")
        [job] = work.claim()
        store._db.run("PRAGMA busy_timeout = 50")
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(StoreUnavailable, match="busy: another process kept it locked"):
            work.complete(job)
        other.execute("ROLLBACK")
        assert work.attempt(job)
        work.drain("run")
        ledger.settle(f"busy beyond the time-out ({kind})", 1, check(history.lines(), store, {"run": 1}))


def test_a_disk_that_is_full(kind: str, tmp_path: Path, ledger: Ledger) -> None:
    # A mount namespace of our own gives a file system that is really full, without being root.
    script = ["unshare", "--map-root-user", "--mount", sys.executable, "-m", "tests.chaos.full_disk", str(tmp_path)]
    done = subprocess.run(script, cwd=ROOT, capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["faults"] >= 3
    assert found["messages"] == ["disk full"]
    ledger.settle(f"disk full ({kind})", found["faults"], Verdict(*found["verdict"]), found["times"])
