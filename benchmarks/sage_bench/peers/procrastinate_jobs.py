"""A worker of procrastinate: ``python procrastinate_jobs.py URL CONCURRENCY NAME``; see `sage_bench.drain`."""

from __future__ import annotations

import asyncio
import json
import resource
import sys
import time

import procrastinate  # type: ignore[import-not-found]


async def obey(url: str, concurrency: int, order: dict[str, object]) -> dict[str, object]:
    """Defer jobs where the order says so, and drain the queue."""
    queue, fill, done = str(order["queue"]), int(str(order["fill"])), 0
    app = procrastinate.App(connector=procrastinate.PsycopgConnector(conninfo=url, max_size=concurrency + 4))

    @app.task(queue=queue, name="nothing")  # type: ignore[untyped-decorator]
    async def nothing(part: int) -> None:
        nonlocal done
        done += 1

    async with app.open_async():
        if fill:
            if not await app.check_connection_async():
                await app.schema_manager.apply_schema_async()
            await nothing.batch_defer_async(*({"part": part} for part in range(fill)))
        say({})
        await asyncio.to_thread(sys.stdin.readline)
        cpu = time.process_time()
        await app.run_worker_async(
            queues=[queue],
            concurrency=concurrency,
            # Until it has caught up; then no word of new jobs is awaited.
            wait=False,
            listen_notify=False,
            install_signal_handlers=False,
        )
        ended = time.monotonic()
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {"done": done, "ended": ended, "cpu": time.process_time() - cpu, "statements": 0, "rss_mib": memory}


def say(answer: dict[str, object]) -> None:
    """Answer a line with a line."""
    sys.stdout.write(json.dumps(answer) + "\n")
    sys.stdout.flush()


def main(url: str, concurrency: str, name: str) -> None:
    """Obey one order after another."""
    while line := sys.stdin.readline():
        say(asyncio.run(obey(url, int(concurrency), json.loads(line))))


if __name__ == "__main__":
    main(*sys.argv[1:])
