"""The ceiling for jobs: the SQL of a claim and a completion, written by hand for each driver, in a loop without SAGE.

The same tables and indexes, the same rows: a fenced claim in order of rank, the job's end guarded by its fence, one
result and one line of history. Left out is what SAGE does besides: expired leases, paused queues, placement, slots,
successors.
"""

from __future__ import annotations

import sqlite3
from typing import Any, Protocol

LEASE_MS = 60_000
BODY = b"body"

_SQLITE_NOW = "CAST((julianday('now') - 2440587.5) * 86400000.0 AS INTEGER)"
_SQLITE_CLAIM = f"""\
UPDATE job SET state = 'running', attempt = attempt + 1, fence = fence + 1, worker = :worker,
 claimed_at = {_SQLITE_NOW}, lease_until = {_SQLITE_NOW} + :lease
WHERE id IN (SELECT id FROM job WHERE state = 'ready' AND queue = :queue AND run_at <= {_SQLITE_NOW}
 ORDER BY rank, run_at, id LIMIT :batch) AND state = 'ready'
RETURNING id, fence, attempt, claimed_at"""
_SQLITE_FINISH = """\
UPDATE job SET state = 'done', result_key = :key, session = 1, lease_until = NULL
WHERE id = :id AND fence = :fence AND state = 'running'"""
_SQLITE_RESULT = (
    f"INSERT INTO result (key, run_id, body, bytes, created_at) VALUES (:key, :queue, :body, 4, {_SQLITE_NOW})"
)
_SQLITE_HISTORY = f"INSERT INTO attempt VALUES (:id, :fence, :attempt, :worker, :claimed, {_SQLITE_NOW}, 'done', '')"

_PG_NOW = "CAST(extract(epoch FROM statement_timestamp()) * 1000 AS BIGINT)"
_PG_CLAIM = f"""\
WITH chosen AS MATERIALIZED (SELECT id FROM job WHERE state = 'ready' AND queue = %(queue)s AND run_at <= {_PG_NOW}
 ORDER BY rank, run_at, id LIMIT %(batch)s FOR UPDATE SKIP LOCKED)
UPDATE job SET state = 'running', attempt = attempt + 1, fence = fence + 1, worker = %(worker)s,
 claimed_at = {_PG_NOW}, lease_until = {_PG_NOW} + %(lease)s
FROM chosen WHERE job.id = chosen.id RETURNING job.id, fence"""
# One statement is one round trip and one transaction.
_PG_COMPLETE = f"""\
WITH given AS (SELECT * FROM unnest(%(ids)s::bigint[], %(fences)s::bigint[], %(keys)s::text[], %(bodies)s::bytea[])
 AS given(id, fence, key, body)),
done AS (UPDATE job SET state = 'done', result_key = given.key, session = 1, lease_until = NULL FROM given
 WHERE job.id = given.id AND job.fence = given.fence AND state = 'running'
 RETURNING job.id, job.fence, job.attempt, job.worker, job.claimed_at, given.key, given.body),
kept AS (INSERT INTO result (key, run_id, body, bytes, created_at) SELECT key, %(queue)s, body, 4, {_PG_NOW} FROM done),
told AS (INSERT INTO attempt SELECT id, fence, attempt, worker, claimed_at, {_PG_NOW}, 'done', '' FROM done)
SELECT count(*) FROM done"""


class Drain(Protocol):
    """Claims and completes until nothing is ready."""

    def drain(self, queue: str, worker: str, batch: int) -> int:
        """Return how many jobs were done."""
        ...


class BareSqlite:
    """The loop on `sqlite3`, with the settings SAGE opens the file with."""

    def __init__(self, url: str) -> None:
        self.connection = sqlite3.connect(url.removeprefix("sqlite:///"), isolation_level=None, timeout=30)
        self.connection.execute("PRAGMA synchronous = NORMAL")
        self.connection.execute("PRAGMA foreign_keys = ON")

    def drain(self, queue: str, worker: str, batch: int) -> int:
        """Return how many jobs were done."""
        connection, count = self.connection, 0
        wanted = {"worker": worker, "lease": LEASE_MS, "queue": queue, "batch": batch}
        while rows := connection.execute(_SQLITE_CLAIM, wanted).fetchall():
            given = [
                {
                    **{"id": id, "fence": fence, "attempt": attempt, "claimed": claimed},
                    **{"queue": queue, "worker": worker, "key": f"{queue}/{id}", "body": BODY},
                }
                for id, fence, attempt, claimed in rows
            ]
            connection.execute("BEGIN IMMEDIATE")
            if connection.executemany(_SQLITE_FINISH, given).rowcount != len(given):
                raise RuntimeError("a job was taken away")
            connection.executemany(_SQLITE_RESULT, given)
            connection.executemany(_SQLITE_HISTORY, given)
            connection.execute("COMMIT")
            count += len(rows)
        return count


class BarePostgres:
    """The loop on psycopg 3, with prepared statements."""

    def __init__(self, url: str) -> None:
        import psycopg  # noqa: PLC0415 - comes with sage-core[postgres]

        self.connection = psycopg.connect(url, autocommit=True)

    def drain(self, queue: str, worker: str, batch: int) -> int:
        """Return how many jobs were done."""
        execute, count = self.connection.execute, 0
        wanted = {"worker": worker, "lease": LEASE_MS, "queue": queue, "batch": batch}
        while rows := execute(_PG_CLAIM, wanted, prepare=True).fetchall():
            given: dict[str, Any] = {
                "ids": [row[0] for row in rows],
                "fences": [row[1] for row in rows],
                "keys": [f"{queue}/{row[0]}" for row in rows],
                "bodies": [BODY] * len(rows),
                "queue": queue,
            }
            if execute(_PG_COMPLETE, given, prepare=True).fetchall() != [(len(rows),)]:
                raise RuntimeError("a job was taken away")
            count += len(rows)
        return count


def bare(url: str) -> BareSqlite | BarePostgres:
    """The loop for the database that a URL names."""
    return BareSqlite(url) if url.startswith("sqlite:") else BarePostgres(url)
