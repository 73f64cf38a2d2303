"""A PostgreSQL server that restarts, cuts connections, has none left, and holds locks: work waits, and is not lost."""

from __future__ import annotations

import random
import time
from contextlib import suppress
from pathlib import Path
from typing import Literal

import psycopg
import pytest

from sage_core.common.errors import StoreUnavailable
from sage_core.platform.store import JobStore
from tests.chaos.history import History, check
from tests.chaos.ledger import Ledger
from tests.chaos.load import Load
from tests.chaos.processes import wait_for
from tests.chaos.server import Server
from tests.chaos.work import Work, submit

pytestmark = pytest.mark.parametrize("kind", ["postgres"])


@pytest.mark.parametrize("mode", ["fast", "immediate"])
def test_a_server_that_restarts_under_load(
    url: str,
    kind: str,
    mode: Literal["fast", "immediate"],
    server: Server,
    tmp_path: Path,
    history: History,
    chance: random.Random,
    seconds: float,
    ledger: Ledger,
) -> None:
    with Load(url, history, tmp_path, chance) as load:
        for _ in load.rounds(seconds, least=3):
            with load.fault():
                server.stop(mode)
                server.start()
        what = {"fast": "restart", "immediate": "crash and recovery"}[mode]
        ledger.settle(f"{what} of the server ({kind})", load.faults, load.finish(), load.times)


def test_backends_terminated_at_random(
    url: str,
    kind: str,
    server: Server,
    tmp_path: Path,
    history: History,
    chance: random.Random,
    seconds: float,
    ledger: Ledger,
) -> None:
    with Load(url, history, tmp_path, chance) as load:
        for number in load.rounds(seconds, least=6):
            with load.fault(0):
                load.faults += server.terminate(chance if number % 2 else None)
        ledger.settle(f"backend terminated ({kind})", load.faults, load.finish(), load.times)


def test_a_pool_without_a_free_connection(
    kind: str,
    server: Server,
    tmp_path: Path,
    history: History,
    chance: random.Random,
    seconds: float,
    ledger: Ledger,
) -> None:
    """Everybody's connections are cut and somebody else takes all there are, until they are let go."""
    server.limit_connections("chaos", 4)
    url = server.schema_url(tmp_path, user="chaos")
    with Load(url, history, tmp_path, chance) as load:
        for _ in load.rounds(seconds):
            taken: list[psycopg.Connection] = []
            unavailable = _count(history, "unavailable")

            def refused(taken: list[psycopg.Connection] = taken) -> bool:
                server.terminate()
                with suppress(psycopg.OperationalError):
                    taken.append(server.connect(url))
                return len(taken) == 4

            with load.fault():
                wait_for(refused, "all connections are taken")
                with pytest.raises(StoreUnavailable, match="too many connections"):
                    JobStore.open(url)
                wait_for(
                    lambda before=unavailable: _count(history, "unavailable") > before + 1,  # type: ignore[misc]
                    "the workers are refused",
                )
                for connection in taken:
                    connection.close()
        ledger.settle(f"no connection left ({kind})", load.faults, load.finish(), load.times)


def _count(history: History, event: str) -> int:
    return sum(line.event == event for line in history.lines())


def test_a_reader_and_a_lock_held_in_idle_transactions(
    url: str,
    kind: str,
    server: Server,
    tmp_path: Path,
    history: History,
    chance: random.Random,
    seconds: float,
    ledger: Ledger,
) -> None:
    """A snapshot that stays open costs the database its cleaning, a locked job is passed over; neither stops work."""
    with Load(url, history, tmp_path, chance) as load, server.connect(url) as reader, server.connect(url) as writer:
        for _ in load.rounds(seconds):
            reader.execute("BEGIN ISOLATION LEVEL REPEATABLE READ")
            reader.execute("SELECT count(*) FROM job")
            with load.fault(2):
                writer.execute("BEGIN")
                locked = writer.execute(
                    "SELECT id FROM job WHERE state = 'ready' ORDER BY id DESC LIMIT 3 FOR UPDATE SKIP LOCKED"
                ).fetchall()
                load.progress(40)
                ids = [row[0] for row in locked]
                done = writer.execute("SELECT id FROM job WHERE state = 'done' AND id = ANY(%s)", [ids]).fetchall()
                assert done == [], "a locked job was taken"
                writer.execute("ROLLBACK")
            reader.execute("ROLLBACK")
        ledger.settle(f"reader or lock held by an idle transaction ({kind})", load.faults, load.finish(), load.times)


@pytest.mark.parametrize("how", ["lock timeout", "deadlock"])
def test_a_lock_of_somebody_else_is_no_lost_job(
    url: str, kind: str, how: str, server: Server, history: History, ledger: Ledger
) -> None:
    with JobStore.open(url) as store, server.connect(url) as other:
        submit(store, "run", 2)
        work = Work(store, history, "mine")
        assert work.step()
        first, second = work.claim(2)
        store._db.run("SET lock_timeout = 200" if how == "lock timeout" else "SET deadlock_timeout = 100")
        other.execute("SET deadlock_timeout = 30000")
        other.execute("BEGIN")
        other.execute("SELECT id FROM job WHERE id = %s FOR UPDATE", [second.id])
        with pytest.raises(StoreUnavailable, match=rf"cannot be reached or is busy \(.*{how}"):  # noqa: SIM117, PT012
            with store.transaction() as tx:
                work.record(tx, first, b"")
                if how == "deadlock":
                    _wait_behind(other, first.id, server)
                work.record(tx, second, b"")
        since = time.monotonic()
        assert [job.state for job in store.jobs("run", stages=["part"])] == ["running", "running"]
        while other.pgconn.get_result() is not None:
            pass
        other.execute("ROLLBACK")
        for job in (first, second):
            assert work.attempt(job)
        took = time.monotonic() - since
        work.drain("run")
        ledger.settle(f"{how} ({kind})", 1, check(history.lines(), store, {"run": 2}), [took])


@pytest.mark.parametrize("inside", [False, True], ids=["between", "inside"])
def test_a_handle_goes_on_after_its_connection_was_cut(
    url: str, kind: str, inside: bool, server: Server, history: History, ledger: Ledger
) -> None:
    with JobStore.open(url) as store:
        submit(store, "run", 2)
        work = Work(store, history, "mine")
        [job] = work.claim()
        if inside:
            with pytest.raises(StoreUnavailable), store.transaction() as tx:  # noqa: PT012
                tx.finish_run("run", "failed")
                server.terminate()
                work.record(tx, job, b"")
        else:
            server.terminate()
            with pytest.raises(StoreUnavailable):
                work.complete(job)
        assert store.run("run").status == "running"
        assert work.attempt(job)
        work.drain("run")
        ledger.settle(f"backend terminated ({kind})", 1, check(history.lines(), store, {"run": 2}))


def _wait_behind(other: psycopg.Connection, id: int, server: Server) -> None:
    """Let the other side wait for a job we hold, without waiting for it ourselves."""
    other.pgconn.send_query(b"UPDATE job SET rank = rank WHERE id = %d" % id)
    asleep = "SELECT 1 FROM pg_stat_activity WHERE pid = %s AND wait_event_type = 'Lock'"
    with server.connect() as watcher:
        wait_for(lambda: watcher.execute(asleep, [other.info.backend_pid]).fetchone(), "the other side waits")
