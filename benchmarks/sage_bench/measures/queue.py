"""What the store itself makes of jobs that do nothing: claim and complete, against the bare SQL of the same."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import msgspec

from sage_bench import postgres
from sage_bench.crew import Crew, Drained, crew, fill
from sage_bench.drain import Order
from sage_bench.results import Figure, Measured
from sage_bench.suite import Bench
from sage_core.platform.store import JobStore

StoreName = Literal["sqlite", "postgres"]
#: Of the bare SQL's jobs a second, at batch 1 and 16.
CEILING_SHARE = 0.6
#: Jobs a second on SQLite, in batches.
SQLITE_RATE = 10_000


@contextmanager
def place(store: StoreName, folder: Path, url: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    """URL of an empty store, and what to say about it."""
    if store == "sqlite":
        yield f"sqlite:///{folder}/sage.db", {"synchronous": "NORMAL", "journal": "WAL"}
        return
    with postgres.server(folder / "pg", url) as server, postgres.schema(server, "sage_bench_jobs") as schema:
        yield schema, postgres.settings(server)


class Queue(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Fill a queue, drain it with worker processes, SAGE and the bare loop in turns."""

    store: StoreName
    batches: tuple[int, ...] = (1, 16, 128)
    workers: tuple[int, ...] = (1, 2, 8)
    #: Jobs of a round at batch 1; larger batches get the square root of their size times as many.
    jobs: int = 2_000
    #: A running server, instead of one of the pgserver wheel.
    postgres: str = ""

    def measure(self, bench: Bench) -> Measured:
        """Time without counting, then count without timing."""
        figures: list[Figure] = []
        with (
            place(self.store, bench.work, self.postgres) as (url, facts),
            JobStore.open(url) as store,
            crew(url, max(self.workers)) as hands,
        ):
            self._round(hands, store, "sage", 1, 1, 100)
            self._round(hands, store, "bare", 1, 1, 100)
            for batch in self.batches:
                for workers in self.workers:
                    found = [self._both(hands, store, batch, workers, turn) for turn in range(bench.repeat)]
                    figures += self._figures(batch, workers, found)
            for batch in self.batches:
                figures += self._counted(hands, store, url, batch)
        how = "SQLite's trace callback" if self.store == "sqlite" else "a counting cursor of the driver"
        return Measured(figures=tuple(figures), facts={**facts, "how statements were counted": how})

    def _round(self, hands: Crew, store: JobStore, side: str, batch: int, workers: int, jobs: int) -> Drained:
        queue = fill(store, jobs)
        return hands.drain(Order(side=side, queue=queue, batch=batch), workers, jobs)

    def _both(self, hands: Crew, store: JobStore, batch: int, workers: int, turn: int) -> dict[str, Drained]:
        jobs = int(self.jobs * batch**0.5)
        # Who is second finds a warmer machine.
        sides = ("sage", "bare") if turn % 2 else ("bare", "sage")
        return {side: self._round(hands, store, side, batch, workers, jobs) for side in sides}

    def _figures(self, batch: int, workers: int, found: list[dict[str, Drained]]) -> Iterator[Figure]:
        name = f"batch {batch}, {workers} worker{'s' if workers > 1 else ''}"
        sage, bare = [turn["sage"] for turn in found], [turn["bare"] for turn in found]
        quick = SQLITE_RATE if self.store == "sqlite" and batch > 1 and workers == 1 else None
        yield Figure(
            name=f"{name}: SAGE", unit="jobs/s", values=tuple(s.rate for s in sage), better="higher", aim=quick
        )
        yield Figure(name=f"{name}: bare SQL", unit="jobs/s", values=tuple(b.rate for b in bare), better="higher")
        yield Figure(
            name=f"{name}: SAGE / bare SQL",
            unit="×",
            values=tuple(s.rate / b.rate for s, b in zip(sage, bare, strict=True)),
            better="higher",
            aim=CEILING_SHARE if batch <= 16 else None,
        )
        for side, rounds in (("SAGE", sage), ("bare SQL", bare)):
            values = tuple(each.cpu / each.jobs * 1e6 for each in rounds)
            yield Figure(name=f"{name}: {side}, workers' processor", unit="µs/job", values=values, better="lower")

    def _counted(self, hands: Crew, store: JobStore, url: str, batch: int) -> Iterator[Figure]:
        jobs = max(512, 4 * batch)
        for side, called in (("sage", "SAGE"), ("bare", "bare SQL")):
            queue = fill(store, jobs)
            before = self._log(store, url)
            done = hands.drain(Order(side=side, queue=queue, batch=batch, counted=True), 1, jobs)
            grown = self._log(store, url, end=True) - before
            sent = (done.statements / jobs,)
            yield Figure(name=f"batch {batch}: {called}, SQL statements", unit="per job", values=sent, better="lower")
            yield Figure(
                name=f"batch {batch}: {called}, write-ahead log",
                unit="bytes/job",
                values=(grown / jobs,),
                better="lower",
            )

    def _log(self, store: JobStore, url: str, *, end: bool = False) -> int:
        database = store._db
        if self.store == "postgres":
            position: int = database.run("SELECT pg_current_wal_insert_lsn() - '0/0'::pg_lsn")[0][0]
            return int(position)
        if not end:
            database.run("PRAGMA wal_checkpoint(TRUNCATE)")
        return Path(url.removeprefix("sqlite:///") + "-wal").stat().st_size
