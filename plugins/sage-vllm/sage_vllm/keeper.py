"""Runs one program and ends it, with all its children, when whoever started this process is gone.

A script of the standard library alone: ``python -I keeper.py SECONDS BYTES LOG PROGRAM [ARGUMENT…]`` with a pipe as its
standard input; what the program writes goes to standard error, which is the file LOG, opened to append: what exceeds
BYTES begins it anew, and what was there is kept beside it, once.

When the pipe closes, which the kernel does however its other end dies, the whole process group gets SIGTERM and after
SECONDS a SIGKILL; when the program ends by itself, what it left behind ends too.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import select
import shutil
import signal
import subprocess
import sys
import time

#: Linux: the signal that a process gets when its parent dies.
PR_SET_PDEATHSIG = 1
#: Seconds between two looks at the program.
LOOK = 0.2


def dies_with_parent() -> None:
    """Let the kernel kill this process when its parent dies; a no-op outside Linux."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def before(log: str) -> str:
    """Where what a log held before is kept."""
    return f"{log.removesuffix('.log')}.before.log"


def trim(log: str, most: int) -> None:
    """Begin a log anew that has grown past `most` bytes."""
    if os.fstat(2).st_size > most:
        # Everybody who writes has the file open: it cannot be moved, and what comes in between is lost.
        shutil.copyfile(log, before(log))
        os.ftruncate(2, 0)


def keep(grace: float, most: int, log: str, command: list[str]) -> int:
    """Run `command` until it ends or standard input does; return its status."""
    # The signals of the group are for the program; this process is the last to go.
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    parent = os.getppid()
    program = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=sys.stderr, preexec_fn=_begin)
    while program.poll() is None:
        asked, _, _ = select.select([sys.stdin], [], [], LOOK)
        with contextlib.suppress(OSError):
            trim(log, most)
        # A pipe that another child of the same parent inherited would stay open.
        if asked or os.getppid() != parent:
            os.killpg(0, signal.SIGTERM)
            until = time.monotonic() + grace
            while program.poll() is None and time.monotonic() < until:
                time.sleep(LOOK / 4)
            break
    return program.poll() or 0


def _begin() -> None:
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)
    dies_with_parent()


if __name__ == "__main__":
    status = 1
    with contextlib.suppress(BaseException):
        status = keep(float(sys.argv[1]), int(sys.argv[2]), sys.argv[3], sys.argv[4:])
    if status:
        # Standard error is the engine's log file.
        sys.stderr.write(f"the program ended with status {status}\n")
        sys.stderr.flush()
    # The program's children, and at last this process.
    os.killpg(0, signal.SIGKILL)
