"""A recorded server with its decision log, or the replay of one, under a policy of the test's choice.

Run as a process, because the order of a set differs between processes: ``recorded.py record|replay FOLDER POLICY``.
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec

import sage_core.testing.engines as fake
from sage_core.builtins import default_host
from sage_core.common.config import Config
from sage_core.common.contracts import Fleet, Scheduler
from sage_core.common.host import Host
from sage_core.common.policies import KeyedScheduler
from sage_core.common.records import Caller, Decision, Dispatch, Event, Idle, ModelSpec, Queued, Request, Verdict, Work
from sage_core.kernel.control_plane.decisions import DecisionLog, log_files
from sage_core.kernel.control_plane.driver import Driver
from sage_core.kernel.control_plane.events import Decided
from sage_core.kernel.control_plane.inline import build_manager
from sage_core.kernel.control_plane.manager import ControlPlaneManager
from sage_core.kernel.control_plane.recording import Comparison, Recorder, Recording, compare

SPEC = ModelSpec(name="m", backend="fake", options={"sequences": 2, "batch_rows": 4, "row_seconds": 0.001})


class Arrival:
    def rank(self, work: Work) -> float:
        return float(work.arrival)


class ReadsTheClock:
    """A mutant: its order depends on when it is asked."""

    def rank(self, work: Work) -> float:
        return float(time.monotonic_ns() % 1_000)


class FollowsASet:
    """A mutant: its order is that of a set of texts, which differs between processes."""

    def __init__(self) -> None:
        self._works: dict[str, Work] = {}

    def submit(self, work: Work, fleet: Fleet, now: int) -> Verdict:
        self._works[work.id] = work
        return Queued()

    def next(self, fleet: Fleet, now: int) -> Decision:
        for name in {*self._works}:
            place = fleet.pick(self._works[name])
            if place is not None:
                return Dispatch(work=self._works.pop(name), place=place)
        return Idle()

    def observe(self, event: Event, now: int) -> None:
        work = getattr(event, "work", None)
        if work is not None:
            self._works.pop(work.id, None)


POLICIES: dict[str, Callable[[], Scheduler]] = {
    "arrival": lambda: KeyedScheduler(Arrival()),
    "clock": lambda: KeyedScheduler(ReadsTheClock()),
    "set": FollowsASet,
}


def manager(policy: str) -> ControlPlaneManager:
    """One under a policy of this module, or, as ``default``, what a sage.toml without settings makes."""
    if policy == "default":
        return build_manager(default_host({"fake": fake}), Config())
    return ControlPlaneManager(lambda name: POLICIES[policy]())


async def record(folder: Path, policy: str) -> None:
    """Serve streams and batches, some of which are cancelled, and write down what was told and what was decided."""
    log = DecisionLog(folder)

    def sink(lines: Sequence[tuple[Request, Decided]]) -> None:
        log.write(line for _, line in lines)

    async def one(driver: Driver, number: int) -> None:
        caller = Caller(tenant=f"t{number % 3}")
        if number % 3:
            texts = tuple(f"text {number} {n}" for n in range(number % 7))
            await driver.ask(Request(id=f"r{number}", kind="embed", model="m", caller=caller, texts=texts), SPEC)
            return
        message = {"role": "user", "content": "to be or not to be " * (number % 5)}
        chat = Request(id=f"r{number}", kind="generate", model="m", caller=caller, messages=(message,), max_tokens=8)
        async for _ in driver.generate(chat, SPEC):
            await asyncio.sleep(0)

    with Recorder(folder / "recording.jsonl") as recorder:
        async with Driver(manager(policy), Host({"fake": fake}).backends, sink=sink, record=recorder) as driver:
            tasks = [asyncio.create_task(one(driver, number)) for number in range(60)]
            await asyncio.wait(tasks[:5])
            for task in tasks[50:]:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
    log.close()


def replayed(folder: Path, policy: str) -> Comparison:
    """Hold the recording of a folder against its log."""
    with Recording(folder / "recording.jsonl") as recording:
        return compare(recording, manager(policy), log_files(folder))


if __name__ == "__main__":
    what, folder, policy = sys.argv[1:]
    if what == "record":
        asyncio.run(record(Path(folder), policy))
    else:
        sys.stdout.buffer.write(msgspec.json.encode(replayed(Path(folder), policy)))
