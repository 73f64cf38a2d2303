"""Runs a claimed job: loads its frames, runs its steps, and makes its result."""

from __future__ import annotations

import functools
import os
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from sage_core.common.contracts import InferenceClient
from sage_core.common.host import Host
from sage_core.common.operators import Artifact
from sage_core.common.records import Job
from sage_core.kernel.dataflow.expressions import Expression, compile_when, reveal
from sage_core.kernel.dataflow.graph import Step
from sage_core.kernel.dataflow.plan import Stage, root_of
from sage_core.kernel.runtime.bound import Bound
from sage_core.kernel.runtime.context import NewArtifact, Opened, StepContext
from sage_core.kernel.runtime.inputs import Inputs, by_grain, side_root
from sage_core.kernel.runtime.join import joined
from sage_core.kernel.runtime.memo import Memo
from sage_core.kernel.runtime.prepared import secret_values
from sage_core.kernel.runtime.results import Result, Tables, mentions
from sage_core.kernel.runtime.splice import Base, Splice, Unsuited, stats_of
from sage_core.kernel.runtime.steps import Running, StepStats, run_collect, run_step
from sage_core.kernel.runtime.table import Frame, Table
from sage_core.kernel.runtime.values import Codec, digest
from sage_core.platform.artifacts import ArtifactStore
from sage_core.platform.store import JobStore

#: Gives a step's view of the inference client.
Clients = Callable[[str], InferenceClient]


class RunScope:
    """What the jobs of one run share inside one process: operators, opened artifacts, compiled conditions."""

    def __init__(
        self,
        run_id: str,
        inputs: Inputs,
        *,
        host: Host,
        store: JobStore,
        artifacts: ArtifactStore,
        codec: Codec,
        clients: Clients,
        warn: Callable[[str], None],
    ) -> None:
        self.run_id = run_id
        self.inputs = inputs
        self.prepared = inputs.prepared
        self.store = store
        self.artifacts = artifacts
        self.codec = codec
        self.tables = Tables(codec, artifacts)
        self._host = host
        self._clients = clients
        self._warn = warn
        self._opened = Opened(artifacts)
        self._bound: dict[tuple[str, bytes], Bound] = {}
        self._expressions: dict[str, Expression] = {}
        self._secrets = secret_values(self.prepared, os.environ)

    def bound(self, step: Step, cell: Mapping[str, Any]) -> Bound:
        """The step's operator, made once per process and matrix cell."""
        key = (step.name, self.codec.encode(dict(cell)))
        if key not in self._bound:
            ports = [port.name for port in step.signature.ports if port.name in step.ports]
            options = reveal(self.prepared.options_of(step, cell), os.environ)
            self._bound[key] = Bound(step, self._host.operators[step.use], ports, options, self._context(step))
        return self._bound[key]

    def expression(self, text: str) -> Expression:
        """Compile a condition once."""
        if text not in self._expressions:
            self._expressions[text] = compile_when(text)
        return self._expressions[text]

    def redact(self, text: str) -> str:
        """The text with every secret's value replaced."""
        for value in self._secrets:
            text = text.replace(value, "***")
        return text

    def close(self) -> None:
        """Close what operators hold open."""
        for bound in self._bound.values():
            bound.close()
        self._bound.clear()

    def _context(self, step: Step) -> StepContext:
        return StepContext(
            run_id=self.run_id,
            step=step.name,
            base=Path(self.prepared.graph.base),
            client=self._clients(step.name),
            artifacts=self.artifacts,
            opened=self._opened,
            store=self.store,
            warn=lambda message: self._warn(self.redact(message)),
        )


class JobRun(Running):
    """One attempt at one job."""

    def __init__(self, scope: RunScope, job: Job) -> None:
        self._scope = scope
        self._job = job
        self._stage: Stage = scope.prepared.stages[job.stage]
        self._memos: dict[tuple[str, bytes], Memo] = {}
        self.graph, self.failures = scope.prepared.graph, []
        self.bound, self.expression, self.redact, self.memo = scope.bound, scope.expression, scope.redact, self._memo
        self.new_artifact = functools.partial(NewArtifact, scope.artifacts)

    async def run(self, base: Result | None = None) -> Result:
        """Run the stage; raises `OperatorError` when a row fails that may not be skipped.

        Args:
            base: a result of the same inputs of which only the rows that failed are computed again.
        """
        if base is not None:
            again = await self._redo(base)
            if again is not None:
                return again
        started = time.perf_counter()
        stage, steps = self._stage, self._scope.prepared.graph.steps
        first = steps[stage.name]
        if first.join:
            tables, stats = self._join(first)
        else:
            (frame,) = self._frames(stage.root)
            tables, stats = frame.tables, {}
            if stage.single and first.signature.shape == "collect":
                parts = self._frames(root_of(self.graph, first.grain))
                stats[first.name] = await run_collect(self, frame, first, parts)
            else:
                for name in stage.steps:
                    stats[name] = await run_step(self, frame, steps[name])
        redo = {}
        if self.failures and not stage.single:
            redo = stats_of(self.graph, self.expression, frame, stage.root, stage.steps, self.failures)
        return self._result(tables, stats, time.perf_counter() - started, redo)

    async def _redo(self, base: Result) -> Result | None:
        """Compute again what failed in a result; None where it does not say which rows those are."""
        stage, steps = self._stage, self.graph.steps
        if stage.single or base.redo.keys() != set(stage.steps):
            return None
        started = time.perf_counter()
        kept = by_grain(self._scope.prepared, stage)
        old = {g: self._scope.tables.read(base.tables[g], g, columns) for g, (columns, _) in kept.items()}
        whole = Base(tables=old, failures=base.failures, start=base.start, stats=base.stats, redo=base.redo)
        try:
            splice = Splice(self.graph, self._frames(stage.root)[0], stage.root, whole)
            stats = {name: await run_step(self, splice.frame, steps[name]) for name in stage.steps}
            tables = splice.tables(kept)
        except Unsuited:
            self.failures.clear()
            return None
        redo = stats_of(self.graph, self.expression, splice.frame, stage.root, stage.steps, self.failures)
        self.failures = splice.failures(self.failures)
        return self._result(tables, splice.stats(stats), time.perf_counter() - started, redo if self.failures else {})

    def _memo(self, step: Step, cell: Mapping[str, Any]) -> Memo | None:
        if not step.signature.memo or not step.signature.pure or not step.cache:
            return None
        scope = self._scope
        key = (step.name, scope.codec.encode(dict(cell)))
        if key not in self._memos:
            # What decides one row's result: code, options and model, but neither wiring nor other steps.
            name = digest(scope.prepared.row_digests[step.name], key[1])
            # Rows are remembered while this attempt owns its job.
            put = functools.partial(scope.store.memo_put, job_id=self._job.id, fence=self._job.fence)
            self._memos[key] = Memo(scope.store.memo_get, put, scope.codec, name)
        return self._memos[key]

    def _join(self, step: Step) -> tuple[dict[str, Table], dict[str, StepStats]]:
        assert step.join is not None
        prepared, started = self._scope.prepared, time.perf_counter()
        roots = {"left": side_root(prepared, step.join.left), "right": side_root(prepared, step.join.right)}
        frames = {side: self._frames(root) for side, root in roots.items()}
        left = set(prepared.graph.lineage(prepared.graph.steps[step.join.left].out))
        carried = {
            column: "left" if prepared.graph.steps[column.split(".", 1)[0]].out in left else "right"
            for column in self._stage.writes
        }
        table = joined(step, frames["left"], frames["right"], carried)
        rows = sum(frame.tables[roots["left"]].n for frame in frames["left"])
        stats = StepStats(rows_in=rows, rows_out=table.n, seconds=time.perf_counter() - started)
        return {step.out: table}, {step.name: stats}

    def _frames(self, root: str) -> list[Frame]:
        return self._scope.inputs.frames(self._scope.store, self._stage, self._job, root=root)

    def _result(
        self, tables: Mapping[str, Table], stats: dict[str, StepStats], seconds: float, redo: dict[str, StepStats]
    ) -> Result:
        stored, digests, artifacts = {}, {}, []
        kept = by_grain(self._scope.prepared, self._stage)
        opened = self._scope.prepared.graph.steps[self._stage.name].out
        if self._stage.single and opened not in kept:
            kept = {**kept, opened: ([], [])}
        for grain, (columns, marks) in kept.items():
            table = tables[grain]
            digests.update(self._scope.tables.digests(table, columns, marks))
            artifacts += [a.digest for column in columns for a in mentions(table.columns[column].values, Artifact)]
            stored[grain] = self._scope.tables.write(table, columns, marks)
        return Result(
            tables=stored,
            digests=digests,
            stats=stats,
            failures=tuple(self.failures),
            redo=redo,
            start=self._job.start,
            artifacts=tuple(artifacts),
            seconds=seconds,
        )
