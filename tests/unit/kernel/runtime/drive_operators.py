"""Operators that stop, kill or hold up the process they run in, for tests of who drives a run and how it ends.

Each does so while its `flag` file is missing, and makes it first: the next attempt goes through.
"""

from __future__ import annotations

import asyncio
import ctypes
import os
import signal
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path

from sage_core import Run, hookimpl, operator


def first_time(flag: str) -> bool:
    if Path(flag).exists():
        return False
    Path(flag).touch()
    return True


@operator("d.numbers", returns="text")
def numbers(*, n: int) -> Iterator[str]:
    yield from map(str, range(n))


@operator("d.plain", returns="text")
def plain(text: str) -> str:
    return text


@operator("d.hang", returns="text")
async def hang(text: str, *, flag: str) -> str:
    if first_time(flag):
        await asyncio.sleep(60)
    return text


@operator("d.block", returns="text")
def block(text: str, *, flag: str) -> str:
    """Holds up the event loop as well."""
    if first_time(flag):
        threading.Event().wait(60)
    return text


@operator("d.nap", returns="text")
async def nap(text: str, *, seconds: float) -> str:
    await asyncio.sleep(seconds)
    return text


@operator("d.churn", returns="text")
def churn(text: str) -> str:
    """Computes for seconds in one call that keeps the interpreter's lock."""
    sum(range(3 * 10**8))
    return text


@operator("d.freeze", returns="text")
def freeze(text: str, *, flag: str) -> str:
    """Keeps the interpreter's lock and does nothing."""
    if first_time(flag):
        ctypes.PyDLL(None).sleep(60)
    return text


@operator("d.fail", returns="text")
def fail(text: str) -> str:
    raise ValueError(f"no {text}")


@operator("d.signal", returns="text")
def send_signal(text: str, *, flag: str, number: int, times: int = 1) -> str:
    if first_time(flag):
        for _ in range(times):
            signal.raise_signal(number)
    return text


@operator("d.die", returns="text")
def die(text: str, *, flag: str) -> str:
    if text == "2" and (not flag or first_time(flag)):
        os.kill(os.getpid(), signal.SIGKILL)
    return text


@operator("d.pid", returns="pid", pure=False)
def pid(text: str) -> int:
    return os.getpid()


@hookimpl
def sage_operators() -> Mapping[str, str]:
    names = ("hang", "block", "nap", "churn", "freeze", "fail", "die", "plain", "numbers", "pid")
    return {**{f"d.{name}": f"{__name__}:{name}" for name in names}, "d.signal": f"{__name__}:send_signal"}


class Ends:
    """A plugin that hears of every run's end."""

    def __init__(self) -> None:
        self.runs: list[Run] = []

    @hookimpl
    def sage_on_run_finished(self, run: Run) -> None:
        self.runs.append(run)
