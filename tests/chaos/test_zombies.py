"""A worker that stops beyond its lease and comes back: it publishes neither a row nor a file that anybody reads."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest

from sage_core.common.errors import StoreUnavailable
from sage_core.platform.store import JobStore
from tests.chaos.history import History, check, result_key
from tests.chaos.ledger import Ledger
from tests.chaos.processes import Nest, wait_until_stopped
from tests.chaos.work import Work, artifacts, live_files, submit

LEASE_MS = 100


class Trial:
    """A run whose first part a zombie holds, and an heir."""

    def __init__(self, url: str, folder: Path, history: History, nest: Nest, store: JobStore) -> None:
        self.store = store
        self.history = history
        self._nest = nest
        self._fixed = {"url": url, "history": str(folder / "history"), "worker": "zombie", "files": str(folder)}
        self.heir = Work(store, history, "heir", files=artifacts(folder))

    def stop(self, where: str, secret: str, *, idle_ms: int = 0) -> int:
        """Start the zombie, and wait until it has stopped itself there."""
        submit(self.store, "run", 2)
        assert self.heir.step()
        pid = self._nest.begin(
            "attempt", stop_at=where, secret=secret, lease_ms=LEASE_MS, idle_ms=idle_ms, **self._fixed
        )
        wait_until_stopped(pid)
        return pid

    def wake(self, pid: int) -> None:
        """Let the zombie go on to its end."""
        os.kill(pid, signal.SIGCONT)
        answer = self._nest.end()
        assert answer["code"] == 0, answer

    def said(self) -> list[str]:
        return [line.event for line in self.history.lines() if line.worker == "zombie"]


@pytest.mark.parametrize("secret", ["", "of a zombie"], ids=["same file", "other file"])
@pytest.mark.parametrize("where", ["claimed", "computed"])
def test_a_zombie_publishes_neither_row_nor_file(
    url: str, kind: str, where: str, secret: str, tmp_path: Path, history: History, nest: Nest, ledger: Ledger
) -> None:
    with JobStore.open(url) as store:
        trial = Trial(url, tmp_path, history, nest, store)
        pid = trial.stop(where, secret)
        since = time.monotonic()
        trial.heir.drain("run")
        took = time.monotonic() - since
        trial.wake(pid)

        ledger.settle(
            f"SIGSTOP between claim and completion ({kind})", 1, check(history.lines(), store, {"run": 2}), [took]
        )
        assert trial.said()[-1] == "refused"
        [job] = {line.job for line in history.lines() if line.worker == "zombie"}
        assert store.results([result_key(job, 1)]) == {}
        files, live = artifacts(tmp_path), live_files(store, ["run"])
        there = {path.name for path in files.root.glob("??/*")}
        garbage = there - live
        assert len(garbage) == bool(secret), "a zombie's file has the same bytes, or nobody names it"
        for digest in live:
            files.verify(digest)
        assert files.collect_garbage(live, min_age_s=-1) == len(garbage)
        assert {path.name for path in files.root.glob("??/*")} == live


def test_a_worker_stopped_after_its_commit_has_done_its_job(
    url: str, kind: str, tmp_path: Path, history: History, nest: Nest, ledger: Ledger
) -> None:
    with JobStore.open(url) as store:
        trial = Trial(url, tmp_path, history, nest, store)
        pid = trial.stop("committed", "")
        trial.heir.drain("run")
        trial.wake(pid)
        ledger.settle(f"SIGSTOP after the commit ({kind})", 1, check(history.lines(), store, {"run": 2}))
        assert trial.said() == ["claimed", "ran", "accepted"]


def test_a_worker_stopped_inside_its_transaction_cannot_stop_the_others(
    url: str, kind: str, tmp_path: Path, history: History, nest: Nest, ledger: Ledger
) -> None:
    """It keeps its locks, which is all of SQLite, or on PostgreSQL its job and what waits for it, for a time."""
    with JobStore.open(url) as store:
        trial = Trial(url, tmp_path, history, nest, store)
        pid = trial.stop("recorded", "", idle_ms=0 if kind == "sqlite" else 300)
        if kind == "sqlite":
            store._db.run("PRAGMA busy_timeout = 50")
            with pytest.raises(StoreUnavailable, match="another process kept it locked"):
                trial.heir.step()
            store._db.run("PRAGMA busy_timeout = 30000")
            trial.wake(pid)
            trial.heir.drain("run")
        else:
            assert store._db.run("SHOW idle_in_transaction_session_timeout") == [("30s",)]
            # The server ends the transaction of the one that is stopped, and its job is taken over.
            trial.heir.drain("run")
            trial.wake(pid)
        ledger.settle(f"SIGSTOP inside a transaction ({kind})", 1, check(history.lines(), store, {"run": 2}))
        ended = ["accepted"] if kind == "sqlite" else ["unavailable", "ran", "refused"]
        assert trial.said() == ["claimed", "ran", *ended]
