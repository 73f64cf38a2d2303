"""A worker of DBOS: ``python dbos_jobs.py URL POLL_SECONDS NAME``; see `sage_bench.drain`.

How long the queue took is read from DBOS's own times of the first start and the last end, so that neither its launch
nor how soon it finds a queue counts against it.
"""

from __future__ import annotations

import json
import resource
import sys
import time

import psycopg
from dbos import DBOS, DBOSClient  # type: ignore[import-not-found]

TOLD = """\
SELECT count(*), coalesce(max(completed_at) - min(started_at_epoch_ms), 0) FROM dbos.workflow_status
WHERE queue_name = %s AND status = 'SUCCESS'"""


@DBOS.workflow(name="nothing")  # type: ignore[untyped-decorator]
def nothing(part: int) -> None:
    """Do nothing."""


def obey(url: str, poll: float, order: dict[str, object]) -> dict[str, object]:
    """Enqueue workflows where the order says so, and run the queue until all of it has ended."""
    queue, fill, total = str(order["queue"]), int(str(order["fill"])), int(str(order["total"]))
    if fill:
        client = DBOSClient(system_database_url=url)
        for part in range(fill):
            client.enqueue({"queue_name": queue, "workflow_name": "nothing"}, part)
        client.destroy()
    say({})
    sys.stdin.readline()
    cpu, began = time.process_time(), time.monotonic()
    DBOS.register_queue(queue, polling_interval_sec=poll)
    with psycopg.connect(url.replace("+psycopg", ""), autocommit=True) as connection:
        done, ms = 0, 0
        while done < total:
            time.sleep(0.05)
            done, ms = connection.execute(TOLD, (queue,)).fetchall()[0]
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {
        **{"done": total if fill else 0, "ended": began + ms / 1000, "seconds": ms / 1000},
        **{"cpu": time.process_time() - cpu, "statements": 0, "rss_mib": memory},
    }


def say(answer: dict[str, object]) -> None:
    """Answer a line with a line."""
    sys.stdout.write(json.dumps(answer) + "\n")
    sys.stdout.flush()


def main(url: str, poll: str, name: str) -> None:
    """Obey one order after another."""
    DBOS(config={"name": "bench", "system_database_url": url, "executor_id": name, "log_level": "ERROR"})
    DBOS.launch()
    while line := sys.stdin.readline():
        say(obey(url, float(poll), json.loads(line)))
    DBOS.destroy()


if __name__ == "__main__":
    main(*sys.argv[1:])
