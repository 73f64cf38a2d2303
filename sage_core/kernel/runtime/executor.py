"""Claims jobs of one run and runs them, one after another, in this process."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import Counter
from collections.abc import Callable
from contextlib import AsyncExitStack
from functools import partial
from types import TracebackType
from typing import Self

import msgspec

from sage_core.common.clock import SECOND
from sage_core.common.config import Config
from sage_core.common.contracts import InferenceClient
from sage_core.common.errors import CorruptArtifact, SageError, StaleAttempt, StoreUnavailable
from sage_core.common.host import Host
from sage_core.common.paths import Paths
from sage_core.common.policies import ordering_named
from sage_core.common.records import Attempt, Job
from sage_core.common.telemetry import log
from sage_core.kernel.control_plane.client import UnifiedInferenceClient
from sage_core.kernel.runtime import retries
from sage_core.kernel.runtime.critical_path import earlier_seconds, run_deadline, seconds_after
from sage_core.kernel.runtime.inputs import Inputs
from sage_core.kernel.runtime.job_manager import JobManager
from sage_core.kernel.runtime.job_runner import JobRun, RunScope
from sage_core.kernel.runtime.metered import Metered
from sage_core.kernel.runtime.patience import patiently
from sage_core.kernel.runtime.prepared import Prepared
from sage_core.kernel.runtime.results import Result, Tables
from sage_core.kernel.runtime.submit import PRIVATE, caller_of
from sage_core.kernel.runtime.values import Codec
from sage_core.kernel.runtime.watchdog import Watchdog
from sage_core.kernel.scheduler.holdings import holdings_path
from sage_core.kernel.scheduler.ledger import fits
from sage_core.kernel.scheduler.node import node_name, this_node
from sage_core.kernel.scheduler.placement import Placement
from sage_core.platform.records import StoredRun
from sage_core.platform.shared import artifacts_of, share
from sage_core.platform.store import JobStore

#: Milliseconds for which a job is put off while another run computes its result: at first, and at most.
SNOOZE_MS, SNOOZE_MOST_MS = 100, 2000


class Executor:
    """Everything one process needs to run jobs of one run; an async context manager.

    Args:
        worker: incarnation of this process in the store; claims carry it.
        inline: control plane and engines live in this process instead of the engine host.
        watchdog: stops attempts that have lost their job; whoever made it closes it.
        node: the node this is on; empty means what the configuration calls this machine.
    """

    def __init__(
        self,
        store: JobStore,
        run: StoredRun,
        prepared: Prepared,
        *,
        worker: str,
        host: Host,
        paths: Paths,
        config: Config,
        inline: bool,
        warn: Callable[[str], None],
        watchdog: Watchdog | None = None,
        node: str = "",
    ) -> None:
        self._store = store
        self._run = run
        self._host = host
        self._worker = worker
        self._lease_ms = int(config.workers.lease * 1000)
        artifacts = artifacts_of(paths.artifacts, store)
        codec = Codec(paths.artifacts)
        tables = Tables(codec, artifacts)
        self.inputs = Inputs(run.id, prepared, tables, codec)
        order = ordering_named(config.scheduler.jobs, host.schedulers)
        self._node = node or node_name(config)
        self.manager = JobManager(
            run.id,
            self.inputs,
            tables,
            order,
            session=run.session,
            queue=run.queue,
            priority=run.priority,
            placement=Placement(config, host.selectors),
            node=self._node,
            limits=config.limits,
            deadline=config.workers.deadline,
        )
        # Only where a job needs something: it costs each claim a statement.
        needy = any(demand.text for demand in self.manager.demands.values())
        self._fits = fits(this_node(config), holdings_path(paths)) if needy else None
        self._artifacts = artifacts
        self._client = UnifiedInferenceClient.create(
            prepared.models,
            paths=paths,
            caller=msgspec.structs.replace(caller_of(run), run=run.id, worker=worker),
            host=host,
            config=config,
            inline=inline,
        )
        self._watchdog = watchdog
        #: Whether a claim was made that was not answered.
        self._unsure = False
        #: Milliseconds that jobs were last put off for, because others compute their results.
        self._snoozed: dict[int, int] = {}
        #: Monotonic ns by which the run is to be over, and for each step the seconds that come after it.
        self._until = run_deadline(run, prepared.graph.end_to_end)
        self._after: dict[str, float] = {}
        self._usage: Counter[str] = Counter()
        self._generated = 0
        self._connected = False
        #: Seconds until the first answer of a model: where it was not loaded, that of loading it.
        self.first_answer: float | None = None
        #: Whether a job that this process ran has failed for good.
        self.failed = False
        self._stack = AsyncExitStack()
        # A worker's host knows what plugins offer; a workflow written in Python may bring functions of its own.
        host.operators.add("local", {n: t for n, t in prepared.local.items() if n not in host.operators})
        self.scope = RunScope(
            run.id,
            self.inputs,
            host=host,
            store=store,
            artifacts=artifacts,
            codec=codec,
            clients=self._client_of,
            warn=warn,
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.scope.close()
        await self._stack.aclose()

    @property
    def generated(self) -> int:
        """Tokens generated in this process so far, those of an answer that is being written included."""
        return self._generated + self._usage["completion"]

    async def one(self) -> bool:
        """Claim a job and run it; False when none is ready. Raises what is no job's failure."""
        jobs = await patiently(self._claim)
        if not jobs:
            return False
        await self.attempt(jobs[0])
        return True

    def _claim(self) -> list[Job]:
        if self._unsure:
            # A claim that was not heard of may have been committed, and nobody else would ever free its job.
            self._store.give_back_all(self._worker)
        self._unsure = True
        jobs = self._store.claim(
            self._worker,
            run_id=self._run.id,
            queue=self._run.queue,
            limit=1,
            lease_ms=self._lease_ms,
            node=self._node,
            fits=self._fits,
        )
        self._unsure = False
        return jobs

    async def attempt(self, job: Job) -> None:
        """Run a claimed job and record what it came to."""
        told = Attempt(
            job=job.id,
            run=self._run.id,
            workflow=self._run.workflow,
            session=self._run.session,
            stage=job.stage,
            part=job.part,
            queue=self._run.queue,
            fence=job.fence,
            attempt=job.attempt,
            worker=self._worker,
            node=self._node,
            outcome="stale",
            started_at=time.time_ns(),
            finished_at=0,
        )
        try:
            key = self.manager.key(self._store, job)
            base = None
            if self._run.session > 1:
                key, base = self.manager.base_of(self._store, self._store.job(job.id), key)
            shared = self._may_be_shared(job)
            if shared and not self._take_key(job, key):
                told = msgspec.structs.replace(told, outcome="given_back")
                return
            await self._connect(job)
            result = await self._run_watched(job, base)
            result = msgspec.structs.replace(result, tokens=dict(self._usage))
            await self._complete(job, key, result, drop=shared)
            told = msgspec.structs.replace(told, outcome="done", steps=result.step_times())
        except StaleAttempt as stale:
            log("attempt_stale", job=job.id, fence=job.fence, error=stale)
            # Whoever took the job may have ended it for good: it was cancelled, or its time is up.
            self.failed |= (await patiently(lambda: self._store.job(job.id))).state == "failed"
        except StoreUnavailable as error:
            log("store_away", job=job.id, error=error)
            await patiently(lambda: self._store.give_back([(job.id, job.fence)]))
            told = msgspec.structs.replace(told, outcome="given_back")
        except asyncio.CancelledError:
            # A store that is away frees the job when its lease runs out.
            with contextlib.suppress(StoreUnavailable):
                self._store.give_back([(job.id, job.fence)])
            told = msgspec.structs.replace(told, outcome="given_back")
            raise
        except Exception as error:  # noqa: BLE001 - the store must learn of every failure, whatever it is
            told = await patiently(partial(self._fail, job, error, told))
        finally:
            self._generated += self._usage["completion"]
            self._usage.clear()
            attempt = msgspec.structs.replace(told, finished_at=time.time_ns())
            self._host.hook.sage_on_job_finished(attempt=attempt)

    async def _run_watched(self, job: Job, base: Result | None) -> Result:
        """Run the job's stage until it is done, or not this process's any more."""
        if self._watchdog is None:
            return await JobRun(self.scope, job).run(base)
        task = asyncio.get_running_loop().create_task(JobRun(self.scope, job).run(base))
        try:
            with self._watchdog.watching(job, task):
                return await task
        except asyncio.CancelledError:
            if self._watchdog.lost(job):
                raise StaleAttempt(self._store.url, job.id, job.fence) from None
            raise

    def _may_be_shared(self, job: Job) -> bool:
        """Whether another run may be computing the same result, and waiting for it is worth a transaction.

        Runs that are driven alone ask only for stages that call models: plain ones cost less than asking.
        """
        stage = self.inputs.prepared.stages[job.stage]
        return stage.pure and (not self._run.queue.startswith(PRIVATE) or self._calls_models(job))

    def _take_key(self, job: Job, key: str) -> bool:
        """Say that this attempt computes a result; False when it is known by now, or another attempt computes it."""
        with self._store.transaction() as tx:
            free = tx.take_key(key, job_id=job.id, fence=job.fence)
            known, body = self.manager.found(tx, job, key)
            if body is not None:
                self.manager.reuse(tx, job, known, body)
                return False
        if not free:
            delay = self._snoozed[job.id] = min(2 * self._snoozed.get(job.id, SNOOZE_MS // 2), SNOOZE_MOST_MS)
            log("job_snoozed", job=job.id, stage=job.stage, ms=delay)
            self._store.snooze(job.id, job.fence, delay)
        return free

    async def _complete(self, job: Job, key: str, result: Result, *, drop: bool) -> None:
        """Record a result, however long the store is away: if the job is another's by then, the fence says so."""
        unheard = False

        def complete() -> None:
            nonlocal unheard
            share(self._store, self._artifacts, result.files)
            try:
                if not drop and not self.manager.is_followed(job):
                    self.manager.complete_last(self._store, job, key, result)
                    return
                with self._store.transaction() as tx:
                    self.manager.complete(tx, job, key, result, fence=job.fence)
                    if drop:
                        tx.drop_key(key, job_id=job.id, fence=job.fence)
            except StoreUnavailable:
                # It may have been committed all the same.
                unheard = True
                self.inputs.forget(job, key)
                raise
            except StaleAttempt:
                if not (unheard and self._is_done(job)):
                    raise

        await patiently(complete)

    def _is_done(self, job: Job) -> bool:
        jobs = self._store.jobs(self._run.id, stages=[job.stage])
        return any((each.id, each.fence, each.state) == (job.id, job.fence, "done") for each in jobs)

    def _fail(self, job: Job, error: Exception, told: Attempt) -> Attempt:
        text = str(error) if isinstance(error, SageError) else f"{type(error).__name__}: {error}"
        text = self.scope.redact(text)
        if isinstance(error, CorruptArtifact):
            # The next session makes it again: a result that names a damaged file must not be found.
            lost = self.inputs.lost_results(self._artifacts)
            with self._store.transaction() as tx:
                tx.forget_results(lost)
            text += "\n  help: what it held will be computed again"
        delay = retries.job_delay_ms(error, job.attempt, self.inputs.prepared.graph.steps)
        try:
            state = self._store.fail(job.id, job.fence, text, retry_in_ms=delay)
            ended = state == "failed"
            log("job_failed" if ended else "job_delayed", job=job.id, stage=job.stage, error=text)
            self.failed |= ended
            told = msgspec.structs.replace(told, outcome="failed" if ended else "retried", error=text)
        except StaleAttempt as stale:
            log("attempt_stale", job=job.id, fence=job.fence, error=stale)
        return told

    async def _connect(self, job: Job) -> None:
        """Open the inference client before the first job that may call a model."""
        if not self._connected and self._calls_models(job):
            self._connected = True
            if self._until is not None:
                seconds = earlier_seconds(self._store, self._run)
                self._after = seconds_after(self.inputs.prepared.graph, seconds)
            await self._stack.enter_async_context(self._client)

    def _calls_models(self, job: Job) -> bool:
        # Models are reached through the context alone.
        steps = self.inputs.prepared.graph.steps
        return any(
            steps[name].signature.wants_context or steps[name].signature.context_in
            for name in self.inputs.prepared.stages[job.stage].steps
        )

    def _client_of(self, step: str) -> InferenceClient:
        left = None
        if self._until is not None:
            left = (self._until - time.monotonic_ns()) / SECOND - self._after.get(step, 0.0)
        return Metered(self._client.bound(step=step, deadline=left), self._usage, self._answered)

    def _answered(self, seconds: float) -> None:
        if self.first_answer is None:
            self.first_answer = seconds
