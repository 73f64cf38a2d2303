"""Drives a run from start to finish: inline while it is small, with worker processes when there is work to build.

The driver is the run's supervisor: it sends the heartbeats, notices dead workers at once, and ends the run.
"""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import msgspec

from sage_core.common.config import Config
from sage_core.common.errors import Interrupted, SageError
from sage_core.common.host import Host
from sage_core.common.paths import Paths
from sage_core.common.records import JobState, Record, Run, RunStatus
from sage_core.kernel.runtime.crew import Crew
from sage_core.kernel.runtime.executor import Executor
from sage_core.kernel.runtime.heartbeat import Heartbeat
from sage_core.kernel.runtime.prepared import Prepared, decode_prepared
from sage_core.kernel.runtime.report import (
    Report,
    failures_of,
    outputs_of,
    results_of,
    session_tokens,
    silent_steps,
    step_reports,
    too_many,
    written_by,
)
from sage_core.platform.processes import this_process
from sage_core.platform.records import NewRun, StoredRun
from sage_core.platform.store import JobStore

#: Seconds between looks at the workers and the store while worker processes run.
GLANCE = 0.01
#: Seconds between two reports of progress.
DRAW = 0.1


class Progress(Record):
    """How far a run is; given to whoever draws it."""

    counts: dict[JobState, int]
    #: Source rows in partitions that are done, and in all that are known.
    rows_done: int
    rows_known: int
    seconds: float


class Settings(Record):
    """How to drive: `workers` 0 means inline whatever comes, None means inline until there is work to build."""

    workers: int | None = None
    resumed: bool = False


class Drive:
    """One session of one run."""

    def __init__(
        self,
        store: JobStore,
        *,
        url: str,
        folder: Path,
        host: Host,
        paths: Paths,
        config: Config,
        settings: Settings,
        watch: Callable[[Progress], None],
    ) -> None:
        self._store = store
        self._url = url
        self._folder = folder
        self._host = host
        self._paths = paths
        self._config = config
        self._settings = settings
        self._watch = watch
        self._me = this_process("supervisor")
        self._warnings: dict[str, None] = {}
        self._interrupts = 0
        self._crew: Crew | None = None
        self._task: asyncio.Task[None] | None = None
        store.register_worker(self._me)

    async def start(self, run_id: str, prepared: Prepared, run: NewRun) -> Report:
        """Submit a run and drive it."""
        stored = StoredRun(**msgspec.structs.asdict(run), session=1)
        executor = self._executor(stored, prepared)
        with self._store.transaction() as tx:
            executor.manager.submit(tx, msgspec.structs.replace(run, status="running", supervisor=self._me.id))
        return await self._drive(stored, executor)

    async def resume(self, run: StoredRun) -> Report:
        """Drive another session of a run that has ended, or whose driver is gone."""
        session = self._store.resume_run(run.id, supervisor=self._me.id)
        run = msgspec.structs.replace(run, session=session)
        executor = self._executor(run, decode_prepared(run.plan))
        with self._store.transaction() as tx:
            executor.manager.settle(tx)
        return await self._drive(run, executor)

    def _executor(self, run: StoredRun, prepared: Prepared) -> Executor:
        return Executor(
            self._store,
            run,
            prepared,
            worker=self._me.id,
            host=self._host,
            paths=self._paths,
            config=self._config,
            inline=True,
            warn=self._warn,
        )

    async def _drive(self, run: StoredRun, executor: Executor) -> Report:
        self._task = asyncio.get_running_loop().create_task(self._work(run, executor))
        # Not the loop's own handlers: those wait for the loop, which a long operator holds up.
        before = {number: signal.signal(number, self._interrupt) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            await self._task
        except (asyncio.CancelledError, KeyboardInterrupt):
            self._store.finish_run(run.id, "cancelled", error="interrupted", session=run.session)
            raise Interrupted(run.id) from None
        except SageError as error:
            self._store.finish_run(run.id, "failed", error=str(error), session=run.session)
            raise
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
            self._store.stop_worker(self._me.id)
        return self._finish(run, executor)

    async def _work(self, run: StoredRun, executor: Executor) -> None:
        started = time.monotonic()
        with Heartbeat(self._url, run.id, self._me.id, lease=self._config.workers.lease):
            async with executor:
                while not self._wants_crew(run) and await executor.one():
                    self._watch(self._progress(run, started))
                    if self._store.counts(run.id).get("failed"):
                        return
        if self._wants_crew(run):
            await self._with_crew(run, started)

    def _wants_crew(self, run: StoredRun) -> bool:
        """Whether what is left to build is worth worker processes."""
        if self._settings.workers is not None:
            return self._settings.workers > 0 and self._left(run)
        waiting = [job for job in self._store.jobs(run.id) if job.state in ("ready", "blocked", "running")]
        by_part: dict[tuple[int, int], int] = {(job.start, job.stop): job.stop - job.start for job in waiting}
        return sum(by_part.values()) > self._config.workers.inline_rows

    def _left(self, run: StoredRun) -> bool:
        counts = self._store.counts(run.id)
        return not counts.get("failed") and any(counts.get(state) for state in ("ready", "running"))

    async def _with_crew(self, run: StoredRun, started: float) -> None:
        size = self._settings.workers or self._config.workers.count
        crew = self._crew = Crew(
            run.id,
            size,
            url=self._url,
            folder=self._folder,
            host=self._host,
            paths=self._paths,
            config=self._config,
        )
        beat = drawn = time.monotonic()
        try:
            while self._left(run):
                crew.bury(self._store)
                crew.fill(os.getpid())
                # The change is made by another process, so there is no event to wait for.
                while not self._store.changed() and crew.all_alive() and not self._due(beat):  # noqa: ASYNC110
                    await asyncio.sleep(GLANCE)
                if self._due(beat):
                    crew.beat(self._store)
                    self._store.beat(self._me.id)
                    beat = time.monotonic()
                if time.monotonic() - drawn > DRAW:
                    self._watch(self._progress(run, started))
                    drawn = time.monotonic()
        finally:
            crew.stop(self._store)

    def _due(self, beat: float) -> bool:
        return time.monotonic() - beat > self._config.workers.lease / 3

    def _progress(self, run: StoredRun, started: float) -> Progress:
        jobs = self._store.jobs(run.id)
        known = {(job.stage, job.start, job.stop): job.state == "done" for job in jobs if job.stop > job.start}
        return Progress(
            counts=self._store.counts(run.id),
            rows_done=sum(stop - start for (_, start, stop), done in known.items() if done),
            rows_known=sum(stop - start for _, start, stop in known),
            seconds=time.monotonic() - started,
        )

    def _interrupt(self, number: int, frame: object) -> None:
        """First signal: stop after giving jobs back. Second: stop now."""
        self._interrupts += 1
        if self._interrupts > 1:
            if self._crew is not None:
                self._crew.kill()
            raise KeyboardInterrupt
        if self._task is not None:
            self._task.get_loop().call_soon_threadsafe(self._task.cancel)

    def _warn(self, message: str) -> None:
        self._warnings[message] = None

    def _finish(self, run: StoredRun, executor: Executor) -> Report:
        jobs = self._store.jobs(run.id)
        results = results_of(self._store, jobs)
        failures = failures_of(executor.inputs, jobs, results)
        steps = step_reports(executor.inputs, jobs, results, run.session)
        broken = [job for job in jobs if job.state == "failed"]
        error = "; ".join(dict.fromkeys(job.error for job in broken)) or too_many(executor.inputs, steps)
        outputs = {} if error else outputs_of(executor.inputs, self._store)
        status: RunStatus = "failed" if error else "partial" if failures else "succeeded"
        self._store.finish_run(run.id, status, msgspec.msgpack.encode(outputs), error, session=run.session)
        report = Report(
            run_id=run.id,
            status=status,
            outputs=outputs,
            steps=steps,
            tokens=session_tokens(jobs, results, run.session),
            written_by=written_by(executor.inputs),
            error=error,
            failures=failures,
            warnings=(*self._warnings, *silent_steps(executor.inputs.prepared.graph, steps)),
        )
        self._host.hook.sage_on_run_finished(
            run=Run(id=run.id, workflow=run.workflow, status=status, created_at="", session=run.session, error=error)
        )
        return report
