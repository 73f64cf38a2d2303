"""The workers of one queue on one node: how many it needs, and when it is given up because they die."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence

from sage_core.common.config import QueueConfig
from sage_core.common.records import Record
from sage_core.common.telemetry import log
from sage_core.kernel.runtime.crew import Crew
from sage_core.platform.store import JobStore

#: Seconds between looks at whether anything was committed.
GLANCE = 0.1
#: Workers of a queue that may die in a row without having held a job, before the queue is given up.
DEATHS = 4
#: Seconds until a worker that held no job is replaced, after the first such death; doubled by each further one.
PAUSE = 0.1
#: Seconds without such a death after which they are counted anew.
CALM = 60.0


class QueueReport(Record):
    """What a supervisor did for one queue."""

    started: int
    died: int
    #: Why the queue is left alone, where it is.
    error: str = ""


class Quota:
    """Jobs that may still be given to workers; None is as many as there are."""

    def __init__(self, jobs: int | None) -> None:
        self.left = jobs

    def take(self, workers: int) -> int:
        """A worker's share, where so many may be started."""
        share = math.ceil((self.left or 0) / workers)
        self.left = (self.left or 0) - share
        return share


class Team:
    """The workers of one queue."""

    def __init__(self, name: str, config: QueueConfig, crew: Crew, quota: Quota, *, count: int) -> None:
        self.name = name
        self.crew = crew
        self._quota = quota
        #: Jobs that each worker may take, where they are counted.
        self._shares: dict[str, int] = {}
        self.started = 0
        self.error = ""
        self._min, self._max = config.min, max(config.max or count, config.min, 1)
        self._buffer, self._idle = config.buffer, config.idle
        #: Deaths in a row that cost no job, and when the next worker may be started.
        self._fruitless, self._not_before = 0, 0.0
        #: Workers that stay however long there is nothing to do.
        self._staying: set[str] = set()

    def bury(self, store: JobStore) -> bool:
        """Free what dead workers held; returns whether there were any. A queue that kills them all is given up."""
        ends = self.crew.bury(store)
        for end in ends:
            self._staying.discard(end.worker)
            if self._quota.left is not None:
                self._quota.left += max(0, self._shares.pop(end.worker) - store.tried([end.worker]))
            if end.code == 0:
                continue
            # What one held that fell silent was taken from it before.
            self._bury_fruitless(end.jobs or (store.tried([end.worker]) if end.silent else 0))
        if self._fruitless >= DEATHS and not self.error:
            self.error = f"{self._fruitless} workers died without running a job; see {self.crew.log}, which ends: "
            self.error += self.crew.last_line()
            log("queue_given_up", queue=self.name, error=self.error)
        return bool(ends)

    def _bury_fruitless(self, jobs: int) -> None:
        now = time.monotonic()
        if jobs or now - self._not_before > CALM:
            self._fruitless = 0
        if not jobs:
            self._fruitless += 1
            self._not_before = now + PAUSE * 2 ** (self._fruitless - 1)

    @property
    def is_pausing(self) -> bool:
        """Whether workers will be started again soon."""
        return not self.error and time.monotonic() < self._not_before + GLANCE

    def staff(self, store: JobStore, able: Sequence[str], node: str) -> None:
        """Start the workers that the queue needs; those that it needs no more leave by themselves."""
        if self.error or time.monotonic() < self._not_before:
            return
        workers = self.crew.workers()
        busy = store.busy(workers) if workers else 0
        ready = store.claimable(self.name, node=node, fits=able, limit=self._max * self._buffer)
        needed = busy + math.ceil(ready / self._buffer)
        if not needed and store.runs_over(self.name, limit=1):
            needed = 1
        for _ in range(min(max(needed, self._min), self._max) - len(self.crew)):
            if self._quota.left == 0:
                return
            share = 0 if self._quota.left is None else self._quota.take(self._max - len(self.crew))
            stays = len(self._staying) < self._min
            worker = self.crew.start(f"--idle={0 if stays else self._idle}", f"--max-jobs={share}")
            self.started += 1
            self._shares[worker] = share
            if stays:
                self._staying.add(worker)

    def is_quiet(self, store: JobStore, able: Sequence[str], soon_ms: int) -> bool:
        """Whether nothing of the queue runs anywhere, is ready for this node, or will be within `soon_ms`."""
        return not (
            store.is_running(self.name)
            or store.waits(self.name, fits=able, within_ms=soon_ms)
            or store.runs_over(self.name, limit=1)
        )
