"""A run that a test moves by hand, job after job: real store, real inputs, real operators, one process."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from sage_core.common.records import Job
from sage_core.kernel.runtime import launch
from sage_core.kernel.runtime.executor import Executor
from sage_core.kernel.runtime.job_runner import JobRun
from sage_core.kernel.runtime.results import Result
from sage_core.platform.records import JobRow, NewRun, StoredRun
from sage_core.platform.store import JobStore
from sage_core.testing.flows import Flows


class OneProcess:
    """One process's view of one run."""

    def __init__(self, store: JobStore, executor: Executor, run_id: str) -> None:
        self.store = store
        self.inputs, self.manager, self.scope = executor.inputs, executor.manager, executor.scope
        self.prepared = executor.inputs.prepared
        self.run_id = run_id
        self._executor = executor
        #: The node it claims for.
        self.node = ""

    def submit(self) -> None:
        """Insert the run and its first jobs."""
        with self.store.transaction() as tx:
            self.manager.submit(tx, NewRun(id=self.run_id, workflow="flow"))

    def claim(self) -> Job:
        """The next ready job."""
        (job,) = self.store.claim("w", run_id=self.run_id, lease_ms=600_000, node=self.node, fits=_anything)
        return job

    def work(self, job: Job) -> Result:
        """What a job comes to."""
        return asyncio.run(JobRun(self.scope, job).run())

    def complete(self, job: Job, result: Result, *, fence: int | None) -> None:
        """Record a result."""
        key = self.manager.key(self.store, job)
        with self.store.transaction() as tx:
            self.manager.complete(tx, job, key, result, fence=fence)

    def one(self) -> Job:
        """Run the next ready job to its end."""
        job = self.claim()
        self.complete(job, self.work(job), fence=job.fence)
        return job

    def all(self) -> list[str]:
        """Run whatever becomes ready; the stages of the jobs that ran, in order."""
        ran = []
        while any(job.state == "ready" for job in self.jobs()):
            ran.append(self.one().stage)
        return ran

    def jobs(self, *stages: str) -> list[JobRow]:
        """The run's jobs, of some stages or of all."""
        return self.store.jobs(self.run_id, stages=stages or None)

    def states(self) -> dict[str, list[str]]:
        """States of the jobs by stage, in partition order."""
        found: dict[str, list[str]] = {}
        for job in sorted(self.jobs(), key=lambda job: job.part):
            found.setdefault(job.stage, []).append("reused" if job.reused else job.state)
        return found


def _anything(waiting: Sequence[str], running: Mapping[str, int]) -> Sequence[str]:
    return waiting


@contextmanager
def one_process(
    flows: Flows, tree: Mapping[str, Any], params: Mapping[str, object] | None = None, *, run_id: str = "r"
) -> Iterator[OneProcess]:
    """Prepare a workflow's run in the home of `flows`; nothing is submitted yet."""
    prepared = launch.bind(flows.graph(tree), params or {}, flows.host, flows.project, run_id=run_id)
    with flows.open_store() as store:
        executor = Executor(
            store,
            StoredRun(id=run_id, workflow="flow"),
            prepared,
            worker="w",
            host=flows.host,
            paths=flows.project.paths,
            config=flows.project.config,
            inline=True,
            warn=lambda message: None,
        )
        try:
            yield OneProcess(store, executor, run_id)
        finally:
            executor.scope.close()
