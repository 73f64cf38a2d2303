"""The runs that a worker is at work on: an executor for each, over the plan that the store has of it.

Imported when a worker has claimed its first job: before that, it needs none of what runs one.
"""

from __future__ import annotations

import contextlib
import logging
import os
import time
from collections import OrderedDict
from contextlib import AsyncExitStack
from pathlib import Path

import msgspec

from sage_core.common.config import load_config
from sage_core.common.errors import SageError, StaleAttempt, StoreUnavailable, UsageError
from sage_core.common.host import Host
from sage_core.common.paths import Paths
from sage_core.common.records import Job, Record
from sage_core.common.telemetry import log
from sage_core.kernel.runtime import finish
from sage_core.kernel.runtime.executor import Executor
from sage_core.kernel.runtime.pins import OtherCode, refuse_other_code
from sage_core.kernel.runtime.prepared import decode_prepared
from sage_core.kernel.runtime.submit import Place
from sage_core.kernel.runtime.watchdog import Watchdog
from sage_core.platform.records import StoredRun
from sage_core.platform.store import JobStore

#: Runs whose executors are kept open, and seconds after which one is looked at again before it is used.
KEPT, STALE = 4, 1.0
#: Milliseconds for which a job is put off that is pinned to code which is not here.
PINNED_MS = 10_000


class Open(Record):
    """A run that is being worked on."""

    run: StoredRun
    executor: Executor
    place: Place
    stack: AsyncExitStack


class Runs:
    """Attempts at jobs of any run, in one process.

    Args:
        store_url: where it is, for a thread that opens a handle of its own.
        worker: incarnation of this process in the store.
        modules: plugins by name; `defaults` is the one of the builtins.
        folder: where sage.toml is looked for, where a run does not say.
    """

    def __init__(
        self,
        store: JobStore,
        *,
        store_url: str,
        worker: str,
        modules: dict[str, object],
        defaults: object | None,
        paths: Paths,
        folder: Path,
        node: str = "",
    ) -> None:
        self._store = store
        self._worker = worker
        self._modules, self._defaults = modules, defaults
        self._host = Host(modules, builtins=defaults)
        self._paths = paths
        self._folder = folder
        self._node = node
        self._open: OrderedDict[str, Open] = OrderedDict()
        self._looked: dict[str, float] = {}
        self._watchdog = Watchdog(store_url, leave=True)

    async def attempt(self, job: Job) -> float | None:
        """Run a claimed job, and end its run if that was its last; returns how long a model's first answer took."""
        try:
            opened = await self._opened(job.run_id)
        except StoreUnavailable:
            raise
        except OtherCode as other:
            self._leave(job, other)
            return None
        except Exception as error:  # noqa: BLE001 - whatever a run cannot be opened for is the run's, not the worker's
            self._refuse(job, error)
            return None
        await opened.executor.attempt(job)
        await self._look(opened)
        return opened.executor.first_answer

    async def finish(self, run_ids: list[str]) -> bool:
        """End runs that nothing is left of; returns whether any was ended here."""
        ended = False
        for run_id in run_ids:
            run = self._store.run(run_id)
            try:
                opened = await self._opened(run_id)
            except StoreUnavailable:
                raise
            except OtherCode:
                continue
            except Exception as error:  # noqa: BLE001 - see `attempt`
                ended |= finish.give_up(self._store, run, self._host, _said(error))
                continue
            ended |= finish.finish(self._store, opened.executor.inputs, opened.run, self._host)
            await self._close(run_id)
        return ended

    async def close(self) -> None:
        """Close every executor."""
        self._watchdog.close()
        for run_id in list(self._open):
            await self._close(run_id)

    async def _opened(self, run_id: str) -> Open:
        opened = self._open.get(run_id)
        if opened is not None and time.monotonic() - self._looked[run_id] > STALE:
            await self._look(opened)
            opened = self._open.get(run_id)
        if opened is None:
            opened = await self._new(run_id)
            self._open[run_id] = opened
            self._looked[run_id] = time.monotonic()
            while len(self._open) > KEPT:
                await self._close(next(iter(self._open)))
        self._open.move_to_end(run_id)
        # Documents are named relative to where the run was started.
        os.chdir(opened.place.cwd)
        return opened

    async def _new(self, run_id: str) -> Open:
        run = self._store.run(run_id)
        place = self._place(run)
        prepared = decode_prepared(run.plan)
        refuse_other_code(run, prepared, self._host)
        if not run.supervisor:
            with self._store.transaction() as tx:
                tx.drive_run(run.id, "", session=run.session)
        executor = Executor(
            self._store,
            run,
            prepared,
            worker=self._worker,
            # Functions that a workflow brings along belong to its run alone.
            host=Host(self._modules, builtins=self._defaults) if prepared.local else self._host,
            paths=self._paths,
            config=load_config(Path(place.project)),
            inline=False,
            watchdog=self._watchdog,
            node=self._node,
            warn=lambda message: log("step_warned", level=logging.WARNING, run=run_id, message=message),
        )
        stack = AsyncExitStack()
        await stack.enter_async_context(executor)
        return Open(run=run, executor=executor, place=place, stack=stack)

    def _place(self, run: StoredRun) -> Place:
        if not run.options:
            return Place(cwd=str(Path.cwd()), project=str(self._folder))
        place = msgspec.msgpack.decode(run.options, type=Place)
        if not Path(place.cwd).is_dir():
            raise UsageError(
                f"run {run.id} was started in {place.cwd}, which is not there on {os.uname().nodename}",
                f"put the folder there, then: sage runs resume {run.id}",
            )
        return place

    async def _look(self, opened: Open) -> None:
        """End the run if nothing is left of it; forget it if it has ended or goes on in another session."""
        run = opened.run
        self._looked[run.id] = time.monotonic()
        pulse = self._store.pulse(run.id)
        if pulse is not None and not pulse.over and pulse.session == run.session:
            return
        finish.finish(self._store, opened.executor.inputs, run, self._host)
        await self._close(run.id)

    async def _close(self, run_id: str) -> None:
        opened = self._open.pop(run_id)
        del self._looked[run_id]
        await opened.stack.aclose()

    def _leave(self, job: Job, other: OtherCode) -> None:
        """Put a job off whose run is pinned to other code: a worker that has it may claim it first."""
        log("run_pinned", level=logging.WARNING, run=job.run_id, job=job.id, differs=other)
        with contextlib.suppress(StaleAttempt):
            self._store.snooze(job.id, job.fence, PINNED_MS)

    def _refuse(self, job: Job, error: Exception) -> None:
        """Fail a job whose run cannot be opened here, and the run with it."""
        log("run_refused", run=job.run_id, job=job.id, error=error)
        with contextlib.suppress(StaleAttempt):
            self._store.fail(job.id, job.fence, _said(error), retry_in_ms=None)
        run = self._store.run(job.run_id)
        if not run.supervisor:
            finish.give_up(self._store, run, self._host, _said(error))


def _said(error: Exception) -> str:
    return str(error) if isinstance(error, SageError) else f"{type(error).__name__}: {error}"
