"""Tests of sage_core.kernel.runtime.lifesign: what is heard of a process that works, computes, hangs or is stopped."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator

import pytest

from sage_core.kernel.runtime.lifesign import START, Lifesign

LEASE = 600.0
SIGNS = "import sys; from sage_core.kernel.runtime.lifesign import give; give(int(sys.argv[1]), 0.1); "


@contextlib.contextmanager
def child(code: str, sign: Lifesign) -> Iterator[int]:
    """A process that runs the code, which finds its end of the pipe in its first argument."""
    command = [sys.executable, "-c", code, str(sign.writer)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, pass_fds=[sign.writer]) as process:
        os.close(sign.writer)
        try:
            yield process.pid
        finally:
            process.kill()
    os.close(sign.reader)


def wait_for(condition: Callable[[], bool]) -> None:
    give_up = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < give_up
        threading.Event().wait(0.05)


def quiet(sign: Lifesign, pid: int) -> Callable[[], bool]:
    """Whether nothing was heard three times in a row; what was written before the silence is heard first."""
    return lambda: not any(sign.listen(pid) for _ in range(3) if not threading.Event().wait(0.05))


def test_a_process_that_is_stopped_is_silent_until_it_goes_on() -> None:
    sign = Lifesign(LEASE)
    assert sign.silence < -START / 2, "whoever starts is not missed"
    with child(SIGNS + "input()", sign) as pid:
        wait_for(lambda: sign.listen(pid))
        wait_for(lambda: sign.silence >= 0)
        os.kill(pid, signal.SIGSTOP)
        wait_for(quiet(sign, pid))
        before = sign.silence
        assert not sign.listen(pid)
        assert sign.silence > before > 0
        os.kill(pid, signal.SIGCONT)
        wait_for(lambda: sign.listen(pid))
        assert sign.silence < before


@pytest.mark.parametrize("work", ["import time; time.sleep(60)", "while True: pass"], ids=["waits", "computes"])
def test_a_process_whose_main_thread_is_busy_gives_signs(work: str) -> None:
    sign = Lifesign(LEASE)
    with child(SIGNS + "\n" + work, sign) as pid:
        for _ in range(5):
            wait_for(lambda: sign.listen(pid))


def test_a_process_that_computes_without_giving_signs_lives() -> None:
    sign = Lifesign(LEASE)
    with child("sum(range(10**15))", sign) as pid:
        for _ in range(5):
            wait_for(lambda: sign.listen(pid))


def test_a_process_that_keeps_the_lock_and_only_waits_is_silent() -> None:
    sign = Lifesign(LEASE)
    with child(SIGNS + "import ctypes; ctypes.PyDLL(None).sleep(60)", sign) as pid:
        wait_for(quiet(sign, pid))
        assert not sign.listen(pid)


def test_one_who_did_not_listen_for_long_does_not_blame_others() -> None:
    sign = Lifesign(0.03)
    with child("input()", sign) as pid:
        threading.Event().wait(0.1)
        assert sign.listen(pid)
