"""Keeps the leases of an inline run alive from a thread of its own, so that a long operator does not lose its job."""

from __future__ import annotations

import threading
from types import TracebackType
from typing import Self

from sage_core.common.errors import SageError
from sage_core.common.telemetry import log
from sage_core.platform.store import JobStore


class Heartbeat:
    """A context manager; the thread opens its own handle on the store when the first beat is due."""

    def __init__(self, url: str, worker: str, *, lease: float) -> None:
        self._url = url
        self._worker = worker
        self._lease = lease
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._beat, name="sage-heartbeat", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        self._thread.join()

    def _beat(self) -> None:
        while not self._over.wait(self._lease / 3):
            try:
                with JobStore.open(self._url) as store:
                    store.renew_workers([self._worker], int(self._lease * 1000))
            except SageError as error:
                # A missed beat is survivable; the next one, or the lease's end, decides.
                log("heartbeat_missed", worker=self._worker, error=error)
