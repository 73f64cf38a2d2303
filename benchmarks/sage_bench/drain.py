"""A worker process of the suite `jobs`: ``python -m sage_bench.drain URL NAME`` drains the queues it is told to.

It answers one JSON line a line: an order is answered ``{}`` when everything is ready, a second line starts it, and what
it came to is the second answer. The jobs do nothing, so all that is measured is the store.
"""

from __future__ import annotations

import json
import resource
import sys
import time
from collections.abc import Callable
from typing import Any

import msgspec

from sage_bench.bare_jobs import BODY, LEASE_MS, bare
from sage_core.platform.records import Completion
from sage_core.platform.store import JobStore


class Order(msgspec.Struct, frozen=True, kw_only=True):
    """Which queue to drain, and with what."""

    side: str
    queue: str
    batch: int
    #: Count statements instead of being quick; on SQLite also keep the write-ahead log from being folded back.
    counted: bool = False


class SageDrain:
    """The loop through the store, as a worker uses it."""

    def __init__(self, url: str) -> None:
        self.store = JobStore.open(url)

    def drain(self, queue: str, worker: str, batch: int) -> int:
        """Return how many jobs were done."""
        store, count = self.store, 0
        while jobs := store.claim(worker, lease_ms=LEASE_MS, queue=queue, limit=batch):
            ends = [
                Completion(
                    job_id=job.id, fence=job.fence, run_id=queue, session=1, result_key=f"{queue}/{job.id}", body=BODY
                )
                for job in jobs
            ]
            if store.complete(ends):
                raise RuntimeError("a job was taken away")
            count += len(jobs)
        return count


def counting(url: str, connection: Any) -> Callable[[], int]:
    """Count what is sent over a connection from here on."""
    if url.startswith("sqlite:"):
        sent: list[str] = []
        connection.execute("PRAGMA wal_autocheckpoint = 0")
        connection.set_trace_callback(sent.append)
        return lambda: len(sent)
    import psycopg  # noqa: PLC0415 - comes with sage-core[postgres]

    number = 0

    class Counting(psycopg.Cursor[Any]):
        def execute(self, *arguments: Any, **options: Any) -> Any:
            nonlocal number
            number += 1
            return super().execute(*arguments, **options)

        def executemany(self, query: Any, params_seq: Any, **options: Any) -> None:
            nonlocal number
            rows = list(params_seq)
            number += len(rows)
            super().executemany(query, rows, **options)

    connection.cursor_factory = Counting
    return lambda: number


def obey(url: str, name: str, order: Order) -> dict[str, Any]:
    """Do what an order says between the two answers."""
    loop: Any = SageDrain(url) if order.side == "sage" else bare(url)
    connection = loop.connection if order.side == "bare" else connection_of(loop.store)
    count = counting(url, connection) if order.counted else lambda: 0
    sys.stdout.write("{}\n")
    sys.stdout.flush()
    sys.stdin.readline()
    before, cpu = count(), time.process_time()
    done = loop.drain(order.queue, name, order.batch)
    found = {
        "done": done,
        "ended": time.monotonic(),
        "cpu": time.process_time() - cpu,
        "statements": count() - before,
        "rss_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }
    (loop.store if order.side == "sage" else connection).close()
    return found


def connection_of(store: JobStore) -> Any:
    """The driver's connection below a store."""
    database = store._db
    return getattr(database, "connection", None) or database._connection  # type: ignore[attr-defined]


def main(url: str, name: str) -> None:
    """Obey one order after another, until there are no more."""
    while line := sys.stdin.readline():
        sys.stdout.write(json.dumps(obey(url, name, msgspec.json.decode(line, type=Order))) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main(*sys.argv[1:])
