"""Turns a prepared run into jobs and keeps them moving: submit, complete, expand, settle.

Whoever completes a job also decides, in the same transaction, what becomes of the jobs that waited for it: partitions
that a finished opener calls for are inserted, and a ready job whose result is known under its key is finished as
reused, which may make others ready in turn. So only work that really has to run is ever claimed.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Iterable, Mapping, Sequence

from sage_core.common.contracts import Ordering
from sage_core.common.errors import CorruptArtifact, RunFailed, StaleAttempt
from sage_core.common.records import Job, Work
from sage_core.common.telemetry import log
from sage_core.kernel.dataflow.graph import RUN
from sage_core.kernel.dataflow.plan import PARAMS, Stage
from sage_core.kernel.runtime.demands import demands
from sage_core.kernel.runtime.inputs import Inputs, Reader
from sage_core.kernel.runtime.partition import partitions
from sage_core.kernel.runtime.results import Result, Tables, decode_result
from sage_core.kernel.runtime.retries import max_attempts
from sage_core.kernel.runtime.values import digest
from sage_core.kernel.scheduler.placement import Placement, Waiting
from sage_core.platform.records import Completion, JobRow, NewJob, NewRun, OnConflict
from sage_core.platform.store import JobStore
from sage_core.platform.transaction import Transaction

#: Failures that may go away by themselves: a result that holds one is reused within its run only.
TRANSIENT = frozenset({"RequestRejected", "TimeoutError", "ConnectionError", "BrokenPipeError", "JobCancelled"})


def redriven(key: str) -> str:
    """The key of a result after the rows that failed in it were computed again."""
    return digest("redriven", key)


def _found(tx: Transaction, key: str) -> tuple[str, bytes | None]:
    """A result by its key, or what the last redrive made of it."""
    body = tx.results([key]).get(key)
    while body is not None and decode_result(body).failures and (mended := tx.results([redriven(key)])):
        key = redriven(key)
        body = mended[key]
    return key, body


class JobManager:
    """Moves the jobs of one run.

    Args:
        placement: where jobs go that become ready here; without it, whoever comes first takes them.
        node: the node this is on.
        limits: jobs of a limit that may run at once; 1 where it is not named.
        deadline: seconds an attempt may take in all; 0 is any number.
    """

    def __init__(
        self,
        run_id: str,
        inputs: Inputs,
        tables: Tables,
        ordering: Ordering,
        *,
        session: int,
        queue: str = "default",
        priority: int = 0,
        placement: Placement | None = None,
        node: str = "",
        limits: Mapping[str, int] | None = None,
        deadline: float = 0.0,
    ) -> None:
        self._run_id = run_id
        self._inputs = inputs
        self._tables = tables
        self._ordering = ordering
        self._session = session
        self._queue, self._priority = queue, priority
        self._placement, self._node = placement, node
        self._limits = limits or {}
        self._timeout_ms = round(1000 * deadline) or None
        self._stages = inputs.prepared.stages
        self._graph = inputs.prepared.graph
        #: What a job of each stage asks of a node.
        self.demands = demands(inputs.prepared)

    def submit(
        self, tx: Transaction, run: NewRun, *, delay_ms: int = 0, on_conflict: OnConflict = "error"
    ) -> str | None:
        """Insert the run and its single jobs; what can be reused at once is settled in the same transaction.

        Returns the id of the run that has its key and is kept instead of it, if there is one.
        """
        single = [stage for stage in self._stages.values() if stage.single]
        kept = tx.insert_run(run, on_conflict=on_conflict)
        if kept is not None:
            return kept
        self._queue, self._priority = run.queue, run.priority
        for name in sorted({step.limit for step in self._graph.steps.values()} - {""}):
            tx.make_slots(name, self._limits.get(name, 1))
        now = tx.now()
        ids = tx.insert_jobs([self._new_job(stage, 0, now, delay_ms=delay_ms) for stage in single])
        places = {stage.name: [id] for stage, id in zip(single, ids, strict=True)}
        edges = {
            (before, after): None
            for stage in single
            for source in self._sources(stage)
            for before in places[self._opener_of(source)]
            for after in places[stage.name]
        }
        tx.insert_edges(list(edges))
        self.settle(tx)
        return None

    def complete(self, tx: Transaction, job: Job, key: str, result: Result, *, fence: int | None) -> None:
        """Record a result and everything that follows from it; raises `StaleAttempt` when the job is not ours."""
        key = self._kept_as(key, result)
        opens = self._opened_by(self._stages[job.stage])
        if fence is None or opens:
            tx.put_result(key, result.encode(), run_id=self._run_id)
            tx.finish(job.id, fence, result_key=key, session=self._session, failures=len(result.failures))
            self._inputs.remember(job, key, result)
            # What also waits for the partitions is released when they are there.
            ready = [*self._expand(tx, self._stages[job.stage], result), *tx.release([job.id])]
        else:
            lost, ready = tx.complete([self._end(job, key, result)])
            if lost:
                raise StaleAttempt(tx.url, job.id, fence)
            self._inputs.remember(job, key, result)
        self._settle(tx, ready)

    def complete_last(self, store: JobStore, job: Job, key: str, result: Result) -> None:
        """The same for a job that nothing follows, in one round trip."""
        key = self._kept_as(key, result)
        if store.complete([self._end(job, key, result)]):
            raise StaleAttempt(store.url, job.id, job.fence)
        self._inputs.remember(job, key, result)

    def is_followed(self, job: Job) -> bool:
        """Whether other jobs wait for a job or come of it."""
        stage = self._stages[job.stage]
        return bool(self._opened_by(stage)) or any(stage.name in self._sources(each) for each in self._stages.values())

    def _kept_as(self, key: str, result: Result) -> str:
        transient = any(failure.kind in TRANSIENT for failure in result.failures)
        return digest("transient", key, self._run_id) if transient else key

    def _end(self, job: Job, key: str, result: Result) -> Completion:
        return Completion(
            job_id=job.id,
            fence=job.fence,
            run_id=self._run_id,
            session=self._session,
            result_key=key,
            body=result.encode(),
            failures=len(result.failures),
        )

    def settle(self, tx: Transaction) -> None:
        """Look at every ready job: at the start, after a resume, or when results have come from elsewhere."""
        try:
            self._settle(tx, [job for job in tx.jobs(self._run_id) if job.state == "ready"])
        except CorruptArtifact as error:
            # What the run had done stands on files that are gone: it is done again.
            lost = self._inputs.lost_results(self._tables.artifacts)
            if not lost:
                raise
            log("results_gone", level=logging.WARNING, run=self._run_id, error=error)
            tx.forget_results(lost)
            tx.reopen_lost(self._run_id)
            self._inputs.forget_all()
            self.settle(tx)

    def found(self, tx: Transaction, job: Job, key: str) -> tuple[str, bytes | None]:
        """A result by its key, or what the last redrive made of it; one whose files are gone everywhere is dropped."""
        while True:
            name, body = _found(tx, key)
            if body is None or self._is_whole(self._stages[job.stage], decode_result(body)):
                return name, body
            log("result_gone", level=logging.WARNING, run=self._run_id, stage=job.stage, part=job.part, key=name)
            tx.forget_results([name])

    def _is_whole(self, stage: Stage, result: Result) -> bool:
        """Whether a result's files are where they can be read; of one that opens partitions, whether they are sound."""
        try:
            if self._opened_by(stage):
                self._inputs.open_root(stage, result)
        except CorruptArtifact:
            return False
        return all(map(self._tables.artifacts.has, result.files))

    def key(self, reader: Reader, job: Job) -> str:
        """The key under which a claimed job's result is kept."""
        return self._inputs.key(reader, self._stages[job.stage], job)

    def reuse(self, tx: Transaction, job: Job, key: str, body: bytes) -> None:
        """Record that a claimed job's result has come from elsewhere; raises `StaleAttempt` when it is not ours."""
        self._settle(tx, self._reuse(tx, job, key, body, fence=job.fence))

    def _reuse(self, tx: Transaction, job: Job, key: str, body: bytes, *, fence: int | None) -> list[JobRow]:
        result = decode_result(body)
        failures = len(result.failures)
        tx.finish(job.id, fence, result_key=key, session=self._session, reused=True, failures=failures)
        self._inputs.remember(job, key, result)
        return [*self._expand(tx, self._stages[job.stage], result), *tx.release([job.id])]

    def base_of(self, reader: Reader, job: JobRow, key: str) -> tuple[str, Result | None]:
        """The key and the result an attempt starts from: where a redrive left a result of these inputs to be mended."""
        while job.result_key and job.failures and job.result_key != key:
            if job.result_key == digest("transient", key, self._run_id):
                break
            if (body := reader.results([key]).get(key)) is None or not decode_result(body).failures:
                return key, None
            key = redriven(key)
        body = reader.results([job.result_key]).get(job.result_key) if job.result_key and job.failures else None
        return (redriven(key), decode_result(body)) if body else (key, None)

    def _settle(self, tx: Transaction, ready: Iterable[JobRow]) -> None:
        waiting, left = deque(ready), []
        while waiting:
            job = waiting.popleft()
            # One that a redrive has reopened runs in any case: the result that would be found is the one to be mended.
            mends = job.result_key and job.failures
            key, body = ("", None) if mends else self.found(tx, job, self.key(tx, job))
            if body is None:
                left.append(job)
                continue
            waiting += self._reuse(tx, job, key, body, fence=None)
        if self._placement is not None:
            self._placement.place(tx, self._queue, [self._waiting(job) for job in left], here=self._node)

    def _waiting(self, job: JobRow) -> Waiting:
        demand = self.demands[job.stage]
        work = self._work(job.stage, job.part, job.run_at, job.stop - job.start)
        return Waiting(id=job.id, work=work, needs=demand.needs, models=demand.models)

    def _expand(self, tx: Transaction, opener: Stage, result: Result) -> list[JobRow]:
        """Insert the jobs of every stage over the grain this stage opened; return those that are ready."""
        stages = self._opened_by(opener)
        if not stages:
            return []
        table = self._inputs.open_root(opener, result)
        before = sorted((job.start, job.stop) for job in tx.jobs(self._run_id, stages=[stages[0].name]))
        bounds = partitions(self._tables.row_hashes(table), min(stage.limit for stage in stages))
        if before:
            # A reopened opener: its partitions exist, and hold as long as its rows are the ones they were cut from.
            if before != bounds:
                raise RunFailed(self._run_id, f"the rows of step {opener.name!r} changed since the run began")
            return []
        now = tx.now()
        jobs = [
            self._new_job(stage, part, now, start, stop)
            for part, (start, stop) in enumerate(bounds)
            for stage in stages
        ]
        ids = tx.insert_jobs(jobs)
        made: dict[str, list[int]] = {stage.name: [] for stage in stages}
        for job, id in zip(jobs, ids, strict=True):
            made[job.stage].append(id)
        tx.insert_edges(self._edges(tx, stages, made))
        inserted = set(ids)
        return [job for job in tx.jobs(self._run_id, stages=[*made]) if job.id in inserted and job.state == "ready"]

    def _edges(self, tx: Transaction, stages: Sequence[Stage], made: dict[str, list[int]]) -> list[tuple[int, int]]:
        """What the new jobs wait for, and what waits for them."""
        existing: dict[str, list[int]] = {}
        for job in tx.jobs(self._run_id):
            existing.setdefault(job.stage, []).append(job.id)
        edges: dict[tuple[int, int], None] = {}
        for stage in stages:
            for source in self._sources(stage):
                if source in made and source not in stage.after:
                    pairs = zip(made[source], made[stage.name], strict=True)
                else:
                    before = existing.get(source) or existing.get(self._opener_of(source), [])
                    pairs = ((b, a) for b in before for a in made[stage.name])  # type: ignore[assignment]
                edges.update(dict.fromkeys(pairs))
        for stage in self._stages.values():
            if stage.name in made:
                continue
            for source in self._sources(stage):
                if source in made:
                    pairs = ((b, a) for b in made[source] for a in existing.get(stage.name, ()))  # type: ignore[assignment]
                    edges.update(dict.fromkeys(pairs))
        return list(edges)

    def _opened_by(self, opener: Stage) -> list[Stage]:
        """Stages over the grain that this one opens."""
        root = self._graph.steps[opener.name].out if opener.single else RUN
        return [stage for stage in self._stages.values() if root != RUN and stage.root == root]

    def _sources(self, stage: Stage) -> list[str]:
        """Stages that come before this one: those it reads, those it is ordered after, and its own opener."""
        names = [name for name in (*stage.reads, *stage.after) if name != PARAMS]
        if not stage.single:
            names.append(self._graph.grains[stage.root].name)
        return list(dict.fromkeys(names))

    def _opener_of(self, name: str) -> str:
        """The stage whose completion makes the jobs of stage `name` known: itself when it is a single job."""
        stage = self._stages[name]
        return name if stage.single else self._graph.grains[stage.root].name

    def _work(self, stage: str, part: int, now: int, rows: int) -> Work:
        return Work(
            id=f"{stage}/{part}",
            lane=self._queue,
            kind="job",
            arrival=now * 1_000_000,
            priority=self._priority,
            rows=rows,
        )

    def _new_job(
        self, stage: Stage, part: int, now: int, start: int = 0, stop: int = 0, *, delay_ms: int = 0
    ) -> NewJob:
        work = self._work(stage.name, part, now, stop - start)
        return NewJob(
            run_id=self._run_id,
            stage=stage.name,
            part=part if not stage.single else 0,
            start=start,
            stop=stop,
            queue=self._queue,
            rank=self._ordering.rank(work),
            delay_ms=delay_ms,
            timeout_ms=self._timeout_ms,
            limit_key=next((limit for name in stage.steps if (limit := self._graph.steps[name].limit)), None),
            max_attempts=max_attempts(self._graph.steps[name] for name in stage.steps),
            needs=self.demands[stage.name].text,
        )
