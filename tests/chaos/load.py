"""A store under load: worker processes that never lack work, faults between their jobs, and a reckoning."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import random
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self, TypeVar

from sage_core.common.errors import StoreError, StoreUnavailable
from sage_core.platform.store import JobStore
from tests.chaos.clock import Clock
from tests.chaos.history import History, Verdict, check
from tests.chaos.processes import PATIENCE, start, wait_for
from tests.chaos.work import GLANCE, submit

#: Lease of workers under load, in ms: much longer than a job takes, short enough to wait for.
LEASE_MS = 1_000
#: Unfinished jobs below which more runs are submitted.
BACKLOG = 60
T = TypeVar("T")


class Load:
    """Some workers on one store, the runs they were given, and the time each fault took to be made good."""

    def __init__(
        self,
        url: str,
        history: History,
        folder: Path,
        chance: random.Random,
        *,
        workers: int = 2,
        pad: int = 100,
        environs: Sequence[Mapping[str, str]] = ({},),
        clock: Path | None = None,
    ) -> None:
        self._url = url
        self._history = history
        self._folder = folder
        self._chance = chance
        self._pad = pad
        self._environs = itertools.cycle(environs)
        self._clock = clock
        self.store = JobStore.open(url)
        if clock is not None:
            Clock(clock).govern(self.store)
        self.plan: dict[str, int] = {}
        self.workers: dict[str, subprocess.Popen[str]] = {}
        self.faults = 0
        self.times: list[float] = []
        self._accepted = self._counted = 0
        for _ in range(workers):
            self.hire()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for worker in self.workers.values():
            worker.kill()
            worker.send_signal(signal.SIGCONT)
            worker.communicate()
        self.store.close()

    def hire(self) -> str:
        """Start a worker under a fresh name."""
        name = os.urandom(8).hex()
        options = {
            **{"url": self._url, "history": str(self._folder / "history"), "worker": name, "lease_ms": LEASE_MS},
            **{"seed": self._chance.random(), "pad": self._pad, "clock": str(self._clock or "")},
        }
        self.workers[name] = start("serve", json.dumps(options), **next(self._environs))
        return name

    def fire(self, name: str) -> None:
        """Kill a worker, and start another in its place."""
        child = self.workers.pop(name)
        child.kill()
        child.communicate()
        self.hire()

    def open_jobs(self, run: str) -> list[int]:
        """How many jobs of a run are not done, by state."""
        return [count for state, count in self.store.counts(run).items() if state != "done"]

    # ------------------------------------------------------------ work

    def patiently(self, ask: Callable[[], T]) -> T:
        """Ask the store for something until it is there to answer."""
        deadline = time.monotonic() + PATIENCE
        while True:
            try:
                return ask()
            except StoreUnavailable:
                assert time.monotonic() < deadline, "the store did not come back"
                time.sleep(GLANCE)

    def accepted(self) -> int:
        """Completions until now."""
        lines = self._history.lines()
        # Asked every few milliseconds: what was counted is not counted anew.
        self._accepted += sum(line.event == "accepted" for line in lines[self._counted :])
        self._counted = len(lines)
        return self._accepted

    def feed(self) -> None:
        """Submit runs until the workers have enough to do."""
        # Asked of the store: who is killed after a commit never says that it was accepted.
        queues = self.patiently(self.store.queues)
        left = sum(queue.ready + queue.running + queue.blocked for queue in queues)
        while left < BACKLOG:
            run, parts = f"run-{len(self.plan)}", self._chance.choice([0, 1, 5, 20])
            try:
                self.patiently(lambda run=run, parts=parts: submit(self.store, run, parts))  # type: ignore[misc]
            except StoreError as error:
                # An earlier try was committed, and the answer lost.
                if "exists" not in str(error):
                    raise
            self.plan[run] = parts
            left += parts + 2

    def mind(self) -> None:
        """See that no worker has ended by itself."""
        for name, worker in self.workers.items():
            assert worker.poll() is None, f"worker {name} ended with {worker.returncode}: {worker.communicate()[1]}"

    def progress(self, count: int = 20) -> None:
        """Let the workers complete some jobs."""
        wanted = self.accepted() + count

        def enough() -> bool:
            self.feed()
            self.mind()
            return self.accepted() >= wanted

        wait_for(enough, f"{count} more jobs are completed")

    @contextlib.contextmanager
    def fault(self, count: int = 1) -> Iterator[None]:
        """Count what happens inside as a fault, made good when every worker has completed another job afterwards."""
        self.faults += count
        yield
        since, begin = time.monotonic_ns(), len(self._history.lines())

        def all_at_work() -> list[int]:
            self.feed()
            self.mind()
            first: dict[str, int] = {}
            for line in self._history.lines()[begin:]:
                if line.event == "accepted" and line.at > since:
                    first.setdefault(line.worker, line.at)
            return [first[name] for name in self.workers] if first.keys() >= self.workers.keys() else []

        moments = wait_for(all_at_work, "every worker completes a job after the fault")
        self.times.append((max(moments) - since) / 1e9)

    def rounds(self, seconds: float, least: int = 2) -> Iterator[int]:
        """Count rounds until the time is over."""
        end = time.monotonic() + seconds
        number = 0
        while number < least or time.monotonic() < end:
            self.progress()
            yield number
            number += 1

    # ------------------------------------------------------------ the end

    def finish(self) -> Verdict:
        """Let the workers end every run and go home, and hold the history against the store."""

        def over() -> bool:
            return self.patiently(lambda: all(self.store.run(run).status == "succeeded" for run in self.plan))

        with contextlib.suppress(AssertionError):
            # What is missing is for the checker to say.
            wait_for(over, "every run ends", seconds=20)
        for worker in self.workers.values():
            worker.terminate()
        for name, worker in self.workers.items():
            _, error = worker.communicate(timeout=PATIENCE)
            assert (worker.returncode, error) == (0, ""), f"worker {name} ended with {worker.returncode}: {error}"
        self.workers.clear()
        return check(self._history.lines(), self.store, self.plan)
