"""A connection that kills its own process just before a chosen statement."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from sage_core.platform.database import Database, Parameters, Step


class Severed:
    """Stands before a `Database` and counts statements while it is armed; all else is passed on."""

    def __init__(self, inner: Database) -> None:
        self._inner = inner
        self._at: int | None = None
        self._sent = False
        #: Statements since it was armed.
        self.counted = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    @contextmanager
    def armed(self, at: int, *, sent: bool = False) -> Iterator[None]:
        """Die before statement `at`, counted from 1; 0 only counts. What follows the last statement counts as one.

        Args:
            sent: die once the statement was sent, without hearing what came of it; for a commit to PostgreSQL.
        """
        self._at, self._sent, self.counted = at, sent, 0
        yield
        self._boundary()
        self.counted -= 1
        self._at = None

    def _boundary(self, leave: Callable[[], None] | None = None) -> None:
        if self._at is None:
            return
        self.counted += 1
        if self.counted == self._at:
            if self._sent and leave is not None:
                leave()
            os.kill(os.getpid(), signal.SIGKILL)

    def _send_commit(self) -> None:
        wire = self._inner._connection.pgconn  # type: ignore[attr-defined]
        wire.send_query(b"COMMIT")
        while wire.flush():
            pass

    def fetch(self, name: str, parameters: Parameters) -> Any:
        self._boundary()
        return self._inner.fetch(name, parameters)

    def write_fetch(self, name: str, parameters: Parameters) -> Any:
        self._boundary()
        return self._inner.write_fetch(name, parameters)

    def write(self, name: str, parameters: Parameters) -> int:
        self._boundary()
        return self._inner.write(name, parameters)

    def write_each(self, name: str, rows: Iterable[Parameters]) -> int:
        # Row by row, so that each row has a boundary of its own.
        return sum([self.write(name, row) for row in rows])

    def insert_each(self, name: str, rows: Iterable[Parameters]) -> list[int]:
        ids = []
        for row in rows:
            self._boundary()
            ids += self._inner.insert_each(name, [row])
        return ids

    def alone(self, name: str, parameters: Parameters) -> Any:
        self._boundary()
        return self._inner.alone(name, parameters)

    def together(self, steps: Sequence[Step]) -> list[Any]:
        # Step by step, so that there is a boundary inside of what otherwise is one round trip.
        made = []
        for name, given in steps:
            if isinstance(given, Mapping):
                self._boundary()
                made += self._inner.together([(name, given)])
            else:
                made.append([])
                for row in given:
                    self._boundary()
                    made[-1] += self._inner.together([(name, [row])])[0]
        return made

    def run(self, text: str) -> Any:
        self._boundary()
        return self._inner.run(text)

    def begin(self) -> None:
        self._boundary()
        self._inner.begin()

    def commit(self) -> None:
        self._boundary(self._send_commit)
        self._inner.commit()
