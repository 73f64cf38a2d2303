"""Signs of life of a worker process: a byte now and then through a pipe, or processor time that it uses."""

from __future__ import annotations

import contextlib
import os
import threading
import time

from sage_core.platform.processes import processor_time

#: Signs a process gives in the time of a lease; whoever renews it listens three times.
RATE = 10
#: Seconds that a process may take to start before it is missed.
START = 10.0


def give(fd: int, lease: float) -> None:
    """Give signs through a pipe, from a thread, for as long as anybody may listen."""
    os.set_blocking(fd, False)

    def signs() -> None:
        with contextlib.suppress(BrokenPipeError):
            while True:
                # One who has not listened for long has enough to read.
                with contextlib.suppress(BlockingIOError):
                    os.write(fd, b".")
                time.sleep(lease / RATE)

    threading.Thread(target=signs, name="sage-life", daemon=True).start()


class Lifesign:
    """What is heard of one process."""

    def __init__(self, lease: float) -> None:
        self._lease = lease
        #: The reader stays here, the writer is the process's own.
        self.reader, self.writer = os.pipe()
        os.set_blocking(self.reader, False)
        self._listened = time.monotonic()
        self._heard = self._listened + START
        self._used = ""

    def listen(self, pid: int) -> bool:
        """Whether there was a sign since the last call, of which there are to be three a lease."""
        now, used = time.monotonic(), ""
        try:
            told = os.read(self.reader, 1 << 16) != b""
        except BlockingIOError:
            told = False
            used = processor_time(pid)
        # Who computes in C and keeps the interpreter's lock cannot write, but uses the processor. Who was stopped
        # itself, as by Ctrl-Z, cannot tell what others did in that time.
        alive = told or "" != self._used != used or now - self._listened > 2 / 3 * self._lease
        if alive:
            self._heard = now if told else max(self._heard, now)
        self._listened, self._used = now, used
        return alive

    @property
    def silence(self) -> float:
        """Seconds without a sign."""
        return time.monotonic() - self._heard
