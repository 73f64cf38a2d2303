"""Claims jobs of one run and runs them, one after another, in this process."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from contextlib import AsyncExitStack
from types import TracebackType
from typing import Self

import msgspec

from sage_core.common.config import Config
from sage_core.common.contracts import InferenceClient
from sage_core.common.errors import CorruptArtifact, SageError, StaleAttempt
from sage_core.common.host import Host
from sage_core.common.paths import Paths
from sage_core.common.policies import ordering_named
from sage_core.common.records import Caller, Job
from sage_core.common.telemetry import log
from sage_core.kernel.control_plane.client import UnifiedInferenceClient
from sage_core.kernel.runtime import retries
from sage_core.kernel.runtime.inputs import Inputs
from sage_core.kernel.runtime.job_manager import JobManager
from sage_core.kernel.runtime.job_runner import JobRun, RunScope
from sage_core.kernel.runtime.metered import Metered
from sage_core.kernel.runtime.prepared import Prepared
from sage_core.kernel.runtime.results import Tables
from sage_core.kernel.runtime.values import Codec
from sage_core.kernel.scheduler.ledger import fits
from sage_core.kernel.scheduler.node import node_name, this_node
from sage_core.platform.records import StoredRun
from sage_core.platform.shared import artifacts_of, share
from sage_core.platform.store import JobStore


class Executor:
    """Everything one process needs to run jobs of one run; an async context manager.

    Args:
        worker: incarnation of this process in the store; claims carry it.
        inline: control plane and engines live in this process instead of the engine host.
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
    ) -> None:
        self._store = store
        self._run = run
        self._worker = worker
        self._lease_ms = int(config.workers.lease * 1000)
        artifacts = artifacts_of(paths.artifacts, store)
        codec = Codec(paths.artifacts)
        tables = Tables(codec, artifacts)
        self.inputs = Inputs(run.id, prepared, tables, codec)
        order = ordering_named(config.scheduler.jobs, host.schedulers)
        self.manager = JobManager(
            run.id, self.inputs, tables, order, session=run.session, queue=run.queue, priority=run.priority
        )
        self._node = node_name(config)
        # Only where a job needs something: it costs each claim a statement.
        self._fits = fits(this_node(config)) if any(self.manager.needs.values()) else None
        self._artifacts = artifacts
        self._client = UnifiedInferenceClient.create(
            prepared.models,
            paths=paths,
            caller=Caller(run=run.id, worker=worker),
            host=host,
            config=config,
            inline=inline,
        )
        self._usage: Counter[str] = Counter()
        self._generated = 0
        self._connected = False
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
        jobs = self._store.claim(
            self._worker,
            run_id=self._run.id,
            queue=self._run.queue,
            limit=1,
            lease_ms=self._lease_ms,
            node=self._node,
            fits=self._fits,
        )
        if not jobs:
            return False
        await self.attempt(jobs[0])
        return True

    async def attempt(self, job: Job) -> None:
        """Run a claimed job and record what it came to."""
        try:
            key = self.manager.key(self._store, job)
            await self._connect(job)
            result = await JobRun(self.scope, job).run()
            result = msgspec.structs.replace(result, tokens=dict(self._usage))
            share(self._store, self._artifacts, result.files)
            with self._store.transaction() as tx:
                self.manager.complete(tx, job, key, result, fence=job.fence)
        except StaleAttempt as stale:
            log("attempt_stale", job=job.id, fence=job.fence, error=stale)
        except asyncio.CancelledError:
            self._store.give_back([(job.id, job.fence)])
            raise
        except Exception as error:  # noqa: BLE001 - the store must learn of every failure, whatever it is
            self._fail(job, error)
        finally:
            self._generated += self._usage["completion"]
            self._usage.clear()

    def _fail(self, job: Job, error: Exception) -> None:
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
            log(f"job_{'failed' if state == 'failed' else 'delayed'}", job=job.id, stage=job.stage, error=text)
            self.failed |= state == "failed"
        except StaleAttempt as stale:
            log("attempt_stale", job=job.id, fence=job.fence, error=stale)

    async def _connect(self, job: Job) -> None:
        """Open the inference client before the first job that may call a model."""
        steps = self.inputs.prepared.graph.steps
        if not self._connected and any(
            steps[name].signature.wants_context or steps[name].signature.context_in
            for name in self.inputs.prepared.stages[job.stage].steps
        ):
            self._connected = True
            await self._stack.enter_async_context(self._client)

    def _client_of(self, step: str) -> InferenceClient:
        return Metered(self._client.bound(step=step), self._usage)
