"""Drives a run from start to finish: inline while it is small, with worker processes when there is work to build.

The driver is the run's supervisor: it sends the heartbeats, notices dead workers at once, and ends the run.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import threading
import time
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path

import msgspec

from sage_core.common.config import Config
from sage_core.common.errors import Interrupted, RunFailed, SageError
from sage_core.common.host import Host
from sage_core.common.paths import Paths
from sage_core.common.records import Record, RunStatus
from sage_core.common.telemetry import log
from sage_core.kernel.runtime import finish
from sage_core.kernel.runtime.crew import Crew
from sage_core.kernel.runtime.executor import Executor
from sage_core.kernel.runtime.heartbeat import Heartbeat
from sage_core.kernel.runtime.patience import patiently
from sage_core.kernel.runtime.prepared import Prepared, decode_prepared
from sage_core.kernel.runtime.preview import decisions
from sage_core.kernel.runtime.progress import Gauge, Planned, Stopping, Watch
from sage_core.kernel.runtime.reopen import reopen
from sage_core.kernel.runtime.report import Report, StepReport, silent_steps, written_by
from sage_core.kernel.runtime.watchdog import Watchdog
from sage_core.platform.processes import this_process
from sage_core.platform.records import ENDED, NewRun, StoredRun
from sage_core.platform.store import JobStore

#: Worker processes of one run that may die before it is given up: what kills them is then not in one job.
DEATHS = 6
#: Seconds between looks at the workers and the store while worker processes run.
GLANCE = 0.01
#: Seconds between two reports of progress, and between looks at whether another process has cancelled the run.
DRAW = 0.2
#: Signals that stop a run. A terminal that is closed counts; under nohup it does not.
STOPS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Settings(Record):
    """How to drive: `workers` 0 means inline whatever comes, None means inline until there is work to build."""

    workers: int | None = None


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
        watch: Watch,
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
        #: Jobs of the run when the work left was last summed up.
        self._known = 0
        self._crew: Crew | None = None
        self._watchdog = Watchdog(url)
        self._task: asyncio.Task[None] | None = None

    async def start(self, run_id: str, prepared: Prepared, run: NewRun) -> Report:
        """Submit a run and drive it."""
        stored = StoredRun(**msgspec.structs.asdict(run), session=1)
        executor = self._executor(stored, prepared)
        self._enter()
        try:
            with self._store.transaction() as tx:
                executor.manager.submit(tx, msgspec.structs.replace(run, status="running", supervisor=self._me.id))
            return await self._drive(stored, executor)
        finally:
            self._leave()

    async def resume(self, run: StoredRun, *, redrive: bool = False) -> Report:
        """Drive another session of a run that has ended, or whose driver is gone.

        Args:
            redrive: rows that failed and were skipped are tried again too.
        """
        # From here on nobody could tell how the session before ended.
        finish.announce(self._store, self._host, run.id)
        self._enter()
        try:
            session = self._store.resume_run(run.id, supervisor=self._me.id)
            run = msgspec.structs.replace(run, session=session)
            try:
                prepared = decode_prepared(run.plan)
                executor = self._executor(run, prepared)
                if redrive:
                    with self._store.transaction() as tx:
                        reopen(tx, run.id, prepared)
            except Exception as error:
                self._end(run, "failed", error=str(error))
                raise
            return await self._drive(run, executor)
        finally:
            self._leave()

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
            watchdog=self._watchdog,
        )

    def _enter(self) -> None:
        finish.announce_left(self._store, self._host)
        self._store.register_worker(self._me)

    def _leave(self) -> None:
        # A store that cannot be written to any more has raised already; the process id tells that this one is gone.
        with contextlib.suppress(SageError):
            self._store.stop_worker(self._me.id)

    async def _drive(self, run: StoredRun, executor: Executor) -> Report:
        self._task = asyncio.get_running_loop().create_task(self._work(run, executor))
        with self._signals(run):
            try:
                await self._task
            except asyncio.CancelledError:
                # `sage runs cancel` has ended the run by itself: that is an outcome to report.
                if self._store.run(run.id).status not in ENDED:
                    self._end(run, "cancelled", error="interrupted")
                    raise Interrupted(run.id) from None
            except Exception as error:
                with contextlib.suppress(SageError):
                    self._end(run, "failed", error=str(error) or type(error).__name__)
                raise
            return await patiently(partial(self._finish, run, executor))

    async def _work(self, run: StoredRun, executor: Executor) -> None:
        gauge = Gauge(
            self._store, run, executor.inputs.prepared, worker=self._me.id, generated=lambda: executor.generated
        )
        ticker = asyncio.get_running_loop().create_task(self._tick(run, gauge))
        try:
            with Heartbeat(self._url, self._me.id, lease=self._config.workers.lease):
                async with executor:
                    if run.session > 1:
                        with self._store.transaction() as tx:
                            executor.manager.settle(tx)
                    crowded = await patiently(partial(self._wants_crew, run))
                    while not crowded and (await executor.one() or await self._later(run)):
                        if executor.failed:
                            return
                        # Jobs of quick plain operators never wait, and a signal is heard only while one does.
                        await asyncio.sleep(0)
                        crowded = await patiently(partial(self._wants_crew, run))
            if crowded:
                await self._with_crew(run, executor)
        finally:
            self._watchdog.close()
            ticker.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await ticker

    async def _later(self, run: StoredRun) -> bool:
        """Wait a little where jobs are left: delayed after a failed attempt, limited, without room, or begun before."""
        now = self._store.now()
        left = (job for job in self._store.jobs(run.id) if job.state in ("ready", "running"))
        if not any(job.state == "running" or job.limit_key or job.needs or job.run_at > now for job in left):
            return False
        await asyncio.sleep(DRAW)
        return True

    async def _tick(self, run: StoredRun, gauge: Gauge) -> None:
        """Report progress, and stop when the run was cancelled or taken over from elsewhere."""
        while True:
            await asyncio.sleep(DRAW)
            try:
                stored, progress = self._store.run(run.id), gauge.read()
            except SageError as error:
                # A busy store hides the progress, not the run.
                log("progress_missed", run=run.id, error=error)
                continue
            if self._task is not None and (stored.status in ENDED or stored.session != run.session):
                self._task.cancel()
                return
            try:
                self._watch(progress)
            except Exception as error:  # noqa: BLE001 - a picture that cannot be drawn must not end the run
                log("progress_missed", run=run.id, error=error)

    def _wants_crew(self, run: StoredRun) -> bool:
        """Whether what is left to build is worth worker processes."""
        if self._settings.workers is not None:
            return self._settings.workers > 0 and self._left(run)
        known = sum(self._store.counts(run.id).values())
        if known == self._known:
            # Work only grows when jobs are inserted, and what there was before was not worth it.
            return False
        self._known = known
        waiting = [job for job in self._store.jobs(run.id) if job.state in ("ready", "blocked", "running")]
        by_part: dict[tuple[int, int], int] = {(job.start, job.stop): job.stop - job.start for job in waiting}
        return sum(by_part.values()) > self._config.workers.inline_rows

    def _left(self, run: StoredRun) -> bool:
        counts = self._store.counts(run.id)
        return not counts.get("failed") and any(counts.get(state) for state in ("ready", "running"))

    async def _with_crew(self, run: StoredRun, executor: Executor) -> None:
        size = self._settings.workers or self._config.workers.count
        lease = self._config.workers.lease
        crew = self._crew = Crew(
            f"--run={run.id}", url=self._url, folder=self._folder, host=self._host, paths=self._paths, lease=lease
        )
        beat = time.monotonic()
        planned = False
        try:
            while await patiently(partial(self._left, run)):
                await patiently(partial(crew.bury, self._store))
                if crew.deaths > DEATHS:
                    said = f"{crew.deaths} worker processes died; see {crew.log}, which ends: {crew.last_line()}"
                    raise RunFailed(run.id, said)
                crew.fill(size)
                planned = planned or await patiently(partial(self._tell_plan, run, executor, size))
                # The change is made by another process, so there is no event to wait for.
                while not await patiently(self._store.changed) and crew.all_alive() and not self._due(beat):  # noqa: ASYNC110
                    await asyncio.sleep(GLANCE)
                if self._due(beat):
                    held = [self._me.id, *crew.living()]
                    await patiently(partial(self._store.renew_workers, held, int(1000 * lease)))
                    beat = time.monotonic()
        finally:
            crew.stop(self._store)

    def _tell_plan(self, run: StoredRun, executor: Executor, size: int) -> bool:
        """Say what is reused and what is left, once partitions are known; returns whether they were."""
        steps = decisions(executor.inputs.prepared.stages, self._store.jobs(run.id))
        known = any(step.jobs > 1 for step in steps.values()) or all(s.verb != "deferred" for s in steps.values())
        if known:
            self._watch(Planned(workers=size, steps=steps))
        return known

    def _due(self, beat: float) -> bool:
        return time.monotonic() - beat > self._config.workers.lease / 3

    @contextlib.contextmanager
    def _signals(self, run: StoredRun) -> Iterator[None]:
        """Take the signals that stop a run, where this is the process's main thread."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return

        def stop(number: int, frame: object) -> None:
            self._interrupt(run)

        # Not the loop's own handlers: those wait for the loop, which a long operator holds up.
        stops = [n for n in STOPS if n != signal.SIGHUP or signal.getsignal(n) != signal.SIG_IGN]
        before = {number: signal.signal(number, stop) for number in stops}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _interrupt(self, run: StoredRun) -> None:
        """First signal: stop after giving jobs back. Second: stop now."""
        self._interrupts += 1
        if self._interrupts == 1:
            self._watch(Stopping(run_id=run.id, at_once=False))
            if self._task is not None:
                self._task.get_loop().call_soon_threadsafe(self._task.cancel)
            return
        self._watch(Stopping(run_id=run.id, at_once=True))
        if self._crew is not None:
            self._crew.kill()
        with contextlib.suppress(SageError):
            # The handle may be in the middle of a transaction, which closing it rolls back.
            self._store.close()
            with JobStore.open(self._url) as store:
                store.finish_run(run.id, "cancelled", error="interrupted", session=run.session)
                store.stop_worker(self._me.id)
        # An exception would have to wait for threads that load models or run operators.
        os._exit(Interrupted.exit_code)

    def _warn(self, message: str) -> None:
        self._warnings[message] = None

    def _finish(self, run: StoredRun, executor: Executor) -> Report:
        found = finish.conclude(self._store, executor.inputs, run)
        status = self._end(run, found.status, found.outputs, found.error)
        return Report(
            run_id=run.id,
            status=status,
            outputs=found.outputs,
            steps=found.steps,
            tokens=dict(found.tokens),
            written_by=_writers(executor, found.steps),
            error=found.error if status == found.status else "it was cancelled from elsewhere",
            failures=found.failures,
            warnings=(*self._warnings, *silent_steps(executor.inputs.prepared.graph, found.steps)),
        )

    def _end(
        self, run: StoredRun, status: RunStatus, outputs: Mapping[str, object] | None = None, error: str = ""
    ) -> RunStatus:
        """End the run and tell the plugins; returns the status it has, which another process may have given it."""
        ours = finish.end(self._store, run, status, outputs, error)
        stored = self._store.run(run.id)
        if not ours and stored.session != run.session:
            log("run_taken_over", run=run.id, session=run.session, by=stored.session)
            raise RunFailed(run.id, "another process took this run over, because this one seemed to be gone")
        return finish.announce(self._store, self._host, run.id).status


def _writers(executor: Executor, steps: Mapping[str, StepReport]) -> dict[str, str]:
    """Outputs that a model wrote in this run: a branch that was not taken wrote nothing."""
    graph = executor.inputs.prepared.graph
    return {
        name: model
        for name, model in written_by(executor.inputs).items()
        if any(
            steps[ref.step].rows_out and not graph.steps[ref.step].signature.pure
            for ref in graph.outputs[name].refs
            if ref.step in steps
        )
    }
