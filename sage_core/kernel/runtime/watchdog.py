"""Stops attempts whose jobs were cancelled, timed out or taken: whatever they still compute would be thrown away.

It looks from a thread, because an operator may hold up the event loop for as long as it likes.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import threading
from collections.abc import Iterator
from typing import Any

from sage_core.common.errors import SageError
from sage_core.common.records import Job
from sage_core.common.telemetry import log
from sage_core.platform.store import JobStore

#: Seconds between looks, and looks after which an attempt that does not stop is left behind with its process.
LOOK, PATIENCE = 0.5, 4


class Watchdog:
    """Watches one attempt at a time; a context manager.

    Args:
        leave: end the process when an attempt does not stop. Right for a worker, which will be replaced.
    """

    def __init__(self, url: str, *, leave: bool = False) -> None:
        self._url = url
        self._leave = leave
        self._watched: tuple[Job, asyncio.Task[Any], asyncio.AbstractEventLoop] | None = None
        self._lost: tuple[int, int] | None = None
        self._over = threading.Event()
        self._thread: threading.Thread | None = None

    def close(self) -> None:
        """Watch no more."""
        self._over.set()
        if self._thread is not None:
            self._thread.join()

    @contextlib.contextmanager
    def watching(self, job: Job, task: asyncio.Task[Any]) -> Iterator[None]:
        """Cancel the task when its attempt owns its job no more."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._look, name="sage-watchdog", daemon=True)
            self._thread.start()
        self._watched = (job, task, asyncio.get_running_loop())
        try:
            yield
        finally:
            self._watched = None

    def lost(self, job: Job) -> bool:
        """Whether this attempt was stopped because it owns its job no more."""
        return self._lost == (job.id, job.fence)

    def _look(self) -> None:
        seen: object = None
        looks = 0
        store: JobStore | None = None
        while not self._over.wait(LOOK):
            watched = self._watched
            # An attempt is looked after once it has lasted: the many short ones cost nothing.
            if watched is None or watched is not seen:
                seen, looks = watched, 0
                if store is not None:
                    store.close()
                    store = None
                continue
            job, task, loop = watched
            if self.lost(job):
                looks += 1
                if self._leave and looks > PATIENCE:
                    log("attempt_abandoned", job=job.id, fence=job.fence)
                    # An exception would have to wait for the operator that does not stop.
                    os._exit(0)
                continue
            try:
                store = store or JobStore.open(self._url)
                if store.holds(job.id, job.fence):
                    continue
            except SageError as error:
                # Nobody can tell while the store is away; the fence will.
                log("watch_missed", job=job.id, error=error)
                continue
            log("attempt_lost", job=job.id, fence=job.fence)
            self._lost = (job.id, job.fence)
            with contextlib.suppress(RuntimeError):
                loop.call_soon_threadsafe(task.cancel)
        if store is not None:
            store.close()
