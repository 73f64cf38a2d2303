"""A worker process: claims jobs of one run or of queues until there is nothing left for it, or it is told to stop.

Started by a run's driver or a node's supervisor as ``python -m sage_core.kernel.runtime.worker``; holds no model and
sends no heartbeat. What runs a job is imported when the first one is claimed.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import importlib
import math
import os
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from sage_core.common.config import Config, load_config
from sage_core.common.errors import StoreUnavailable
from sage_core.common.paths import Paths
from sage_core.common.records import Job
from sage_core.common.telemetry import log, log_to_stderr
from sage_core.kernel.runtime.crew import STORE
from sage_core.kernel.runtime.lifesign import give
from sage_core.kernel.runtime.patience import AWAY, LONGEST, patiently
from sage_core.kernel.scheduler.holdings import holdings_path
from sage_core.kernel.scheduler.ledger import fits
from sage_core.kernel.scheduler.node import this_node
from sage_core.platform.processes import this_process
from sage_core.platform.records import ENDED
from sage_core.platform.store import JobStore

if TYPE_CHECKING:
    from sage_core.kernel.runtime.runs import Runs

#: Seconds between looks at the database's version counter: after a job, and after a while without one.
GLANCE, DROWSY = 0.005, 0.1
#: Seconds between looks at the jobs themselves.
LOOK = 1.0
#: Exit status of a worker that cannot run any job: its install is broken, not the job it gave back.
BROKEN = 3


class Duty(msgspec.Struct, frozen=True, kw_only=True):
    """What a worker is there for."""

    #: The one run whose jobs it claims; empty means any run of its queues.
    run: str = ""
    queues: tuple[str, ...] = ()
    #: Process to outlive which would be wrong.
    parent: int
    #: Seconds without a job after which it leaves; 0 means never.
    idle: float = 0.0
    #: Jobs after which it leaves; 0 means never.
    max_jobs: int = 0


class Worker:
    """Claims and runs jobs, one after another."""

    def __init__(self, store: JobStore, options: Options, config: Config) -> None:
        self._store = store
        self._id: str = options.given.id
        self._duty = duty = options.duty
        self._lease_ms = int(config.workers.lease * 1000)
        here = this_node(config)
        self._node = msgspec.structs.replace(here, name=options.given.node or here.name)
        self._fits = fits(self._node, holdings_path(options.paths))
        self._queues = (store.run(duty.run).queue,) if duty.run else duty.queues
        self._options = options
        self._runs: Runs | None = None
        #: Whether the store was away, so that a claim may have been made that was not answered.
        self._unsure = False
        self._glance = GLANCE

    async def work(self) -> None:
        """Run jobs as they become ready, until there is nothing left to do here."""
        last, tried, away = time.monotonic(), 0, AWAY
        try:
            while os.getppid() == self._duty.parent:
                try:
                    if self._unsure:
                        # A claim that was not heard of may have been committed, and its lease is prolonged for ever.
                        self._store.give_back_all(self._id)
                        self._unsure, away = False, AWAY
                    if await self._step():
                        self._glance = GLANCE
                        last, tried = time.monotonic(), tried + 1
                        if tried == self._duty.max_jobs:
                            return
                        continue
                    if self._is_over() or 0 < self._duty.idle < time.monotonic() - last:
                        return
                    await self._wait(last + self._duty.idle if self._duty.idle else math.inf)
                except StoreUnavailable as error:
                    log("store_away", worker=self._id, error=error)
                    self._unsure = True
                    await asyncio.sleep(away)
                    away = min(away * 2, LONGEST)
        finally:
            if self._runs is not None:
                await self._runs.close()

    async def _step(self) -> bool:
        """Run a job, if one can be claimed, else end what runs are left; returns whether a job was claimed."""
        job = self._claim()
        if job is not None:
            answer = await self._opened(job).attempt(job)
            if answer is not None and "model" not in self._options.phases:
                self._options.phases["model"] = round(1000 * answer)
                self._store.tell_phases(self._id, self._options.phases)
            return True
        for queue in self._duty.queues:
            over = self._store.runs_over(queue)
            if over:
                await self._opened(None).finish(over)
        return False

    def _claim(self) -> Job | None:
        for queue in self._queues:
            jobs = self._store.claim(
                self._id,
                lease_ms=self._lease_ms,
                run_id=self._duty.run or None,
                queue=queue,
                node=self._node.name,
                fits=self._fits,
            )
            if jobs:
                return jobs[0]
        return None

    def _opened(self, job: Job | None) -> Runs:
        if self._runs is None:
            try:
                self._runs = self._options.runs(self._store, self._id)
            except Exception as error:
                if job is not None:
                    self._store.give_back([(job.id, job.fence)])
                log("worker_broken", worker=self._id, error=error)
                raise SystemExit(BROKEN) from error
            self._store.tell_phases(self._id, self._options.phases)
        return self._runs

    def _is_over(self) -> bool:
        if not self._duty.run:
            return False
        pulse = self._store.pulse(self._duty.run)
        return pulse is None or pulse.status in ENDED

    async def _wait(self, leave: float) -> None:
        """Until something was committed that may be work, a job is due, it is time to look again, or to leave."""
        queues = self._duty.queues
        due = [moment for queue in queues if (moment := self._store.next_run_at(queue)) is not None and moment > 0]
        until = min(leave, time.monotonic() + min([LOOK, *(moment / 1000 for moment in due)]))
        while (left := until - time.monotonic()) > 0 and os.getppid() == self._duty.parent:
            # Asked before sleeping too: the word of a change may have come along with another answer.
            if self._store.changed() and (not queues or any(map(self._may_claim, queues))):
                return
            await self._doze(left)

    async def _doze(self, left: float) -> None:
        """Sleep a little longer each time, or until the store itself wakes this process."""
        # A store tells others of a commit a little later, and this process must be awake for that.
        fd = self._store.fileno() if self._glance > 2 * GLANCE else None
        if fd is None:
            await asyncio.sleep(min(self._glance, left))
            self._glance = min(self._glance * 1.05, DROWSY)
            return
        loop, woken = asyncio.get_running_loop(), asyncio.Event()
        loop.add_reader(fd, woken.set)
        try:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(woken.wait(), left)
        finally:
            loop.remove_reader(fd)

    def _may_claim(self, queue: str) -> bool:
        able = self._fits(self._store.needs_waiting(), {})
        return self._store.claimable(queue, node=self._node.name, fits=able) > 0 or bool(self._store.runs_over(queue))


class Options:
    """The command line, and how long each phase of the cold start took."""

    def __init__(self, given: argparse.Namespace) -> None:
        self.given = given
        self.paths = Paths(project=given.project, data=given.data, runtime=given.runtime)
        self.duty = Duty(
            run=given.run, queues=tuple(given.queue), parent=given.parent, idle=given.idle, max_jobs=given.max_jobs
        )
        #: Milliseconds by phase.
        self.phases: dict[str, int] = {}

    def runs(self, store: JobStore, worker: str) -> Runs:
        """Import what runs jobs."""
        began = time.monotonic()
        # A worker that waits for its first job holds none of this in memory.
        from sage_core.kernel.runtime.runs import Runs  # noqa: PLC0415

        imported = time.monotonic()
        plugins = dict(plugin.split("=", 1) for plugin in self.given.plugin)
        modules: dict[str, object] = {name: importlib.import_module(module) for name, module in plugins.items()}
        defaults = modules.pop("builtins", None)
        runs = Runs(
            store,
            store_url=self.given.store,
            worker=worker,
            modules=modules,
            defaults=defaults,
            paths=self.paths,
            folder=self.given.folder,
            node=self.given.node,
        )
        self.phases |= {
            "import": round(1000 * (imported - began)),
            "plugins": round(1000 * (time.monotonic() - imported)),
        }
        return runs


async def _main(options: Options) -> None:
    given = options.given
    config = load_config(given.folder)
    if given.sign:
        give(given.sign, config.workers.lease)
    task = asyncio.current_task()
    assert task is not None
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGTERM, task.cancel)
    # Ctrl-C reaches the whole process group; whoever started this process decides what it means and sends SIGTERM.
    loop.add_signal_handler(signal.SIGINT, lambda: None)
    me = msgspec.structs.replace(this_process("worker"), id=given.id, node=given.node, queue=",".join(given.queue))
    opened = await patiently(lambda: JobStore.open(given.store, synchronous=config.store.synchronous))
    with opened as store:
        await patiently(lambda: store.register_worker(me))
        if given.born:
            options.phases["spawn"] = round(1000 * (time.time() - given.born))
        try:
            await Worker(store, options, config).work()
        finally:
            with contextlib.suppress(StoreUnavailable):
                store.stop_worker(given.id)


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="sage-worker", description=__doc__)
    for folder in ("project", "data", "runtime"):
        parser.add_argument(f"--{folder}", type=Path, required=True)
    parser.add_argument("--folder", type=Path, required=True, help="where sage.toml is looked for")
    url = os.environ.pop(STORE, None)
    parser.add_argument("--store", default=url, required=url is None, help=f"URL of the job store, or ${STORE}")
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--run", default="", help="run whose jobs are claimed")
    what.add_argument("--queue", action="append", default=[], help="queue whose jobs are claimed; may be repeated")
    parser.add_argument("--id", required=True, help="incarnation under which jobs are claimed")
    parser.add_argument("--parent", type=int, required=True, help="process to outlive which would be wrong")
    parser.add_argument("--sign", type=int, default=0, help="pipe for signs of life")
    parser.add_argument("--node", default="", help="name of this node")
    parser.add_argument("--idle", type=float, default=0.0, help="seconds without a job after which to leave")
    parser.add_argument("--max-jobs", type=int, default=0, help="jobs after which to leave")
    parser.add_argument("--born", type=float, default=0.0, help="when the process was started, in epoch seconds")
    parser.add_argument("--plugin", action="append", default=[], metavar="NAME=MODULE")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a worker; exit code 0 also when it was told to stop."""
    options = Options(parse(arguments))
    log_to_stderr()
    with contextlib.suppress(asyncio.CancelledError):
        asyncio.run(_main(options))
    return 0


if __name__ == "__main__":
    sys.exit(main())
