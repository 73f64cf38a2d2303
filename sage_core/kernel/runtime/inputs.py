"""What a job reads: the digests that make its key, and the frames its steps run over."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from sage_core.common.errors import CorruptArtifact
from sage_core.common.operators import Artifact
from sage_core.common.records import Job
from sage_core.kernel.dataflow.graph import RUN
from sage_core.kernel.dataflow.plan import PARAMS, Stage, root_of
from sage_core.kernel.runtime.prepared import Prepared
from sage_core.kernel.runtime.results import Result, Tables, decode_result, mentions, slice_table
from sage_core.kernel.runtime.table import Column, Frame, Table
from sage_core.kernel.runtime.values import Codec, digest
from sage_core.platform.artifacts import ArtifactStore
from sage_core.platform.reader import Reader as Reader


class Inputs:
    """Reads what the jobs of one run need; results and root tables are read once and kept."""

    def __init__(self, run_id: str, prepared: Prepared, tables: Tables, codec: Codec) -> None:
        self.prepared = prepared
        self._run_id = run_id
        self._tables = tables
        self._codec = codec
        self._results: dict[str, Result] = {}
        #: Per stage, the result keys of jobs known to be done, by part; and stages of which all are known.
        self._done: dict[str, dict[int, str]] = {}
        self._whole: set[str] = set()
        self._roots: dict[tuple[str, str], Table] = {}
        self._parents = {name: grain.parents for name, grain in prepared.graph.grains.items()}

    def key(self, reader: Reader, stage: Stage, job: Job) -> str:
        """Names a job's result: equal code, options, wiring and inputs give equal keys. All it reads must be done."""
        parts = [self.prepared.stage_digest(stage, self._run_id)]
        for source, columns in stage.reads.items():
            if source == PARAMS:
                parts += [f"{column}={self.prepared.param_digest(column)}" for column in columns]
                continue
            before = self.prepared.stages[source]
            marks = [f"{name}?" for name in before.marks]
            if before.single and not stage.single and self._opens(before) == stage.root:
                table = slice_table(self.root_table(reader, before, columns), job.start, job.stop)
                found = self._tables.digests(table, columns, before.marks)
                parts += [f"{name}={found[name]}" for name in (*columns, *marks)]
                continue
            for result in self._results_of(reader, before, None if stage.single else job.part):
                parts += [f"{name}={result.digests[name]}" for name in (*columns, *marks)]
        return digest(*parts)

    def frames(self, reader: Reader, stage: Stage, job: Job | None = None, *, root: str) -> list[Frame]:
        """Frames with all that `stage` reads: one for a partition, one per partition below a collect or join."""
        if job is not None and not stage.single:
            return [self._frame(reader, stage, root, job.part, job.start, job.stop)]
        if root == RUN:
            return [self._frame(reader, stage, root, 0, 0, 0)]
        partitioned = [source for source in stage.reads if self._is_part_of(source, root)]
        if not partitioned:
            opener = self.prepared.stages[self.prepared.graph.grains[root].name]
            rows = self.root_table(reader, opener, stage.reads.get(opener.name, ())).n
            return [self._frame(reader, stage, root, 0, 0, rows)]
        parts = reader.jobs(self._run_id, stages=[partitioned[0]])
        return [self._frame(reader, stage, root, part.part, part.start, part.stop) for part in parts]

    def root_table(self, reader: Reader, opener: Stage, columns: Sequence[str]) -> Table:
        """The table whose rows partitions are cut from."""
        (result,) = self._results_of(reader, opener, None)
        return self.open_root(opener, result, columns)

    def open_root(self, opener: Stage, result: Result, columns: Sequence[str] | None = None) -> Table:
        """The same, from a result at hand; None reads all columns."""
        grain = self._opens(opener)
        stored = result.tables[grain]
        wanted = tuple(opener.writes if columns is None else columns)
        known = self._roots.get((grain, stored.file))
        if known is None or not set(wanted) <= known.columns.keys():
            known = self._roots[grain, stored.file] = self._tables.read(
                stored, grain, dict.fromkeys([*wanted, *(known.columns if known else ())])
            )
        return known

    def _frame(self, reader: Reader, stage: Stage, root: str, part: int, start: int, stop: int) -> Frame:
        frame = Frame(self._parents, offset=start)
        for source, columns in stage.reads.items():
            if source == PARAMS:
                for column in columns:
                    value = self.prepared.params.get(column.split(".", 1)[1])
                    frame.tables[RUN].columns[column] = Column([value])
                continue
            before = self.prepared.stages[source]
            opened = self._opens(before)
            if before.single and opened not in (RUN, root):
                continue  # A join's other side.
            if before.single and opened == root and root != RUN:
                frame.tables[root] = _merged(
                    frame.tables.get(root), slice_table(self.root_table(reader, before, columns), start, stop)
                )
            elif before.single:
                (result,) = self._results_of(reader, before, None)
                frame.tables[RUN] = _merged(frame.tables[RUN], self._tables.read(result.tables[RUN], RUN, columns))
            elif before.root == root:
                (result,) = self._results_of(reader, before, part)
                for grain, stored in result.tables.items():
                    frame.tables[grain] = _merged(frame.tables.get(grain), self._tables.read(stored, grain, columns))
        if root != RUN and root not in frame.tables:
            frame.tables[root] = Table(root, stop - start)
        if self._tables.artifacts.is_cache:
            # Fetched here, because an operator opens their paths from threads that may not ask the store.
            for found in (column.values for table in frame.tables.values() for column in table.columns.values()):
                for artifact in mentions(found, Artifact):
                    self._tables.artifacts.obtain(artifact.digest)
        return frame

    def _results_of(self, reader: Reader, stage: Stage, part: int | None) -> list[Result]:
        """Results of a stage's finished jobs, in partition order; of one partition when `part` is given."""
        done = self._done.setdefault(stage.name, {})
        part = 0 if stage.single else part
        if part not in done and stage.name not in self._whole:
            jobs = reader.jobs(self._run_id, stages=[stage.name])
            done.update({job.part: job.result_key for job in jobs if job.state == "done" and job.result_key})
            if len(done) == len(jobs):
                self._whole.add(stage.name)
        keys = [done[each] for each in sorted(done)] if part is None else [done[part]]
        missing = [key for key in keys if key not in self._results]
        if missing:
            found = reader.results(missing)
            for key in missing:
                if key not in found:
                    raise CorruptArtifact(f"result {key}", f"of stage {stage.name!r} is gone from the store")
                self._results[key] = decode_result(found[key])
        return [self._results[key] for key in keys]

    def remember(self, job: Job, key: str, result: Result) -> None:
        """Keep the result of a job that this process has just finished."""
        self._results[key] = result
        self._done.setdefault(job.stage, {})[job.part] = key

    def forget(self, job: Job, key: str) -> None:
        """Undo `remember`: what was to be kept with it was not."""
        self._results.pop(key, None)
        self._done.get(job.stage, {}).pop(job.part, None)

    def forget_all(self) -> None:
        """Read everything anew: results that were read are not there any more."""
        for known in (self._results, self._done, self._whole, self._roots):
            known.clear()

    def lost_results(self, artifacts: ArtifactStore) -> list[str]:
        """Keys of the results read so far whose files are damaged or gone; damaged files are moved out of the way."""
        lost = []
        for key, result in self._results.items():
            for name in result.files:
                try:
                    artifacts.verify(name)
                except CorruptArtifact:
                    artifacts.discard(name)
                    lost.append(key)
        return list(dict.fromkeys(lost))

    def _opens(self, stage: Stage) -> str:
        """The root grain a single stage opens, or "" when its columns are values of the run."""
        return self.prepared.graph.steps[stage.name].out if stage.single else stage.root

    def _is_part_of(self, source: str, root: str) -> bool:
        return (
            source != PARAMS and not self.prepared.stages[source].single and self.prepared.stages[source].root == root
        )


def side_root(prepared: Prepared, step: str) -> str:
    """Root grain of the rows that a step gives."""
    return root_of(prepared.graph, prepared.graph.steps[step].out)


def _merged(table: Table | None, more: Table) -> Table:
    """One table with the columns of both; they describe the same rows."""
    if table is None:
        return more
    if table.n != more.n:
        raise CorruptArtifact(f"table of {table.grain!r}", f"holds {more.n} rows where {table.n} are expected")
    table.columns.update(more.columns)
    table.marks.update(more.marks)
    table.parent = more.parent if table.parent is None else table.parent
    return table


def column_grain(prepared: Prepared, stage: Stage, column: str) -> str:
    """The grain at which a stage keeps a column: a join keeps those of its sides at its own."""
    first = prepared.graph.steps[stage.name]
    return first.out if first.join else prepared.graph.steps[column.split(".", 1)[0]].out


def by_grain(prepared: Prepared, stage: Stage) -> Mapping[str, tuple[list[str], list[str]]]:
    """Columns and marks a stage keeps, by grain."""
    grains: dict[str, tuple[list[str], list[str]]] = {}
    for column in stage.writes:
        grains.setdefault(column_grain(prepared, stage, column), ([], []))[0].append(column)
    for mark in stage.marks:
        step = prepared.graph.steps[mark.rstrip(">")]
        grains.setdefault(step.out if mark == step.name else step.grain, ([], []))[1].append(mark)
    return grains
