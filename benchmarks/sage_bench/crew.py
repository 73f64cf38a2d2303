"""The worker processes of a case: started once, then given one queue after another to drain together."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import msgspec

from sage_bench.drain import Order
from sage_bench.home import clean_environment
from sage_core import SageError
from sage_core.platform.records import NewJob, NewRun
from sage_core.platform.store import JobStore


class Drained(msgspec.Struct, frozen=True, kw_only=True):
    """How a queue was drained."""

    jobs: int
    #: From the word to start until the last worker had found nothing more.
    seconds: float
    #: Processor seconds of the workers.
    cpu: float
    statements: int
    rss_mib: float

    @property
    def rate(self) -> float:
        """Jobs a second."""
        return self.jobs / self.seconds


class Crew:
    """Worker processes that wait on a pipe between orders."""

    def __init__(self, command: Sequence[str], size: int, *, named: bool = True) -> None:
        # What peers log is of interest when one ends; a full pipe would stop them.
        self._log = tempfile.TemporaryFile("w+", errors="replace")  # noqa: SIM115 - open as long as the crew
        pipe, log = subprocess.PIPE, self._log
        environ = clean_environment()
        commands = [[*command, f"worker-{n}"] if named else list(command) for n in range(size)]
        self._children = [
            subprocess.Popen(each, stdin=pipe, stdout=pipe, stderr=log, text=True, env=environ) for each in commands
        ]

    def drain(self, order: Order, workers: int, jobs: int) -> Drained:
        """Let some of the workers drain a queue of so many jobs."""
        chosen = self._children[:workers]
        self._say(chosen, [msgspec.json.encode(order).decode()] * workers)
        return self._start(chosen, jobs)

    def drain_filled(self, queue: str, workers: int, jobs: int) -> Drained:
        """Let the first worker fill a queue, and all of them drain it."""
        chosen = self._children[:workers]
        orders = [{"queue": queue, "fill": 0 if n else jobs, "total": jobs} for n in range(workers)]
        self._say(chosen, [json.dumps(order) for order in orders])
        return self._start(chosen, jobs)

    def hear(self) -> dict[str, Any]:
        """Wait for the first worker's next answer."""
        return self._hear(self._children[:1])[0]

    def ask(self, order: dict[str, Any]) -> dict[str, Any]:
        """Give the first worker an order, and wait for its answer."""
        self._say(self._children[:1], [json.dumps(order)])
        return self.hear()

    def _start(self, chosen: Sequence[subprocess.Popen[str]], jobs: int) -> Drained:
        self._hear(chosen)
        began = time.monotonic()
        self._say(chosen, ["go"] * len(chosen))
        answers = self._hear(chosen)
        if sum(answer["done"] for answer in answers) != jobs:
            raise SageError(f"of {jobs} jobs, {[answer['done'] for answer in answers]} were done")
        return Drained(
            jobs=jobs,
            # A peer that keeps times of its own is believed.
            seconds=max(answer.get("seconds", answer["ended"] - began) for answer in answers),
            cpu=sum(answer["cpu"] for answer in answers),
            statements=sum(answer["statements"] for answer in answers),
            rss_mib=max(answer["rss_mib"] for answer in answers),
        )

    def close(self) -> None:
        """End the workers."""
        for child in self._children:
            child.communicate()
        self._log.close()

    def _say(self, chosen: Sequence[subprocess.Popen[str]], texts: Sequence[str]) -> None:
        for child, text in zip(chosen, texts, strict=True):
            assert child.stdin is not None
            child.stdin.write(text + "\n")
            child.stdin.flush()

    def _hear(self, chosen: Sequence[subprocess.Popen[str]]) -> list[dict[str, Any]]:
        answers = []
        for child in chosen:
            assert child.stdout is not None
            line = child.stdout.readline()
            if not line:
                status = child.wait()
                self._log.seek(0)
                said = self._log.read()[-800:].strip()
                raise SageError(f"a worker ended with status {status}" + (f": {said}" if said else ""))
            answers.append(json.loads(line))
        return answers


@contextmanager
def crew(url: str, size: int) -> Iterator[Crew]:
    """Workers of the suite's own loops on a store."""
    found = Crew([sys.executable, "-m", "sage_bench.drain", url], size)
    try:
        yield found
    finally:
        found.close()


def fill(store: JobStore, jobs: int) -> str:
    """Queue ready jobs of a run of their own, and return the name of their queue."""
    queue = uuid.uuid4().hex
    with store.transaction() as tx:
        tx.insert_run(NewRun(id=queue, workflow="jobs", status="running", queue=queue))
        tx.insert_jobs([NewJob(run_id=queue, stage="nothing", part=part, queue=queue) for part in range(jobs)])
    return queue
