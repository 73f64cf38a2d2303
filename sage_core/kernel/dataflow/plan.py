"""Cuts a checked graph into stages; a stage over a partition is a job.

A step that runs on the run's row, a collect to the run and a join are stages of their own: one job each. All other
steps belong to the partitions of their *root* grain (the child of the run, or the join, that their rows descend from)
and share a stage when nothing forces a cut: a value computed from the same rows, a different kind of resource or limit,
``checkpoint``, a run value that only some of them read, or a step whose results must not outlive the run. The last
two keep a changed question from re-running the embedding of every document.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from sage_core.common.records import Record
from sage_core.kernel.dataflow.graph import RUN, Binding, Graph, Ref, Step

#: Source rows a job holds at most when the workflow does not say.
PARTITION = 256

#: What a stage reads of the run's parameters is read from a stage of this name, which has no job.
PARAMS = "params"


class Stage(Record):
    """Steps that run together over one partition, or over the run's row."""

    #: Name of its first step, which is in no other stage.
    name: str
    steps: tuple[str, ...]
    #: Root grain its partitions are cut from; "" for a stage of one job.
    root: str = RUN
    #: Columns (``step.column``) it takes from each other stage; `PARAMS` for parameters.
    reads: dict[str, tuple[str, ...]] = {}
    #: Columns other stages or the outputs take from it.
    writes: tuple[str, ...] = ()
    #: Steps whose presence others need although they take no column of them.
    marks: tuple[str, ...] = ()
    #: Stages that must be over, in all their partitions, before any job of this one starts.
    after: tuple[str, ...] = ()
    #: False: results are reused within the run only.
    pure: bool = True
    #: Source rows a job of this stage's root holds at most.
    limit: int = PARTITION

    @property
    def single(self) -> bool:
        """Whether the stage is one job."""
        return self.root == RUN


def root_of(graph: Graph, grain: str) -> str:
    """The grain that `grain`'s partitions are cut from: a child of the run or a join; "" for the run itself."""
    while grain != RUN:
        parents = graph.grains[grain].parents
        if len(parents) != 1 or parents[0] == RUN:
            return grain
        grain = parents[0]
    return RUN


def columns_of(graph: Graph, ref: Ref) -> list[str]:
    """Columns behind a reference, ``step.column``: one, or all of a step's when it names the whole record."""
    if ref.column:
        return [f"{ref.step}.{ref.column}"]
    return [f"{ref.step}.{name}" for name in graph.steps[ref.step].columns]


def owner(column: str) -> str:
    """The step, or `PARAMS`, that a ``step.column`` belongs to."""
    return column.partition(".")[0]


def inputs_of(graph: Graph, step: Step) -> dict[str, None]:
    """Columns a step reads, ``step.column``, in order: ports, `when`, and a join's keys."""
    refs = [ref for binding in step.ports.values() for ref in binding.refs]
    refs += step.when_refs
    if step.join:
        refs += [ref for pair in step.join.on for ref in pair]
    return dict.fromkeys(column for ref in refs for column in columns_of(graph, ref))


def group_grain(graph: Graph, step: Step) -> str:
    """The grain whose rows a collect makes one value each for; a matrix opens another one below it."""
    return graph.grains[step.out].parents[0] if step.matrix else step.out


def expanded_below(graph: Graph, step: Step) -> str:
    """The step that opened the grain right below a collect's groups; "" where a group is the run, or one row."""
    at, grain = group_grain(graph, step), step.grain
    if at in (RUN, grain):
        return ""
    while graph.grains[grain].parents != (at,):
        (grain,) = graph.grains[grain].parents
    return grain


def expansion(step: str) -> str:
    """Name of the mark of the rows that a step opened a grain below, kept beside those rows."""
    return f"{step}>"


def is_single(graph: Graph, step: Step) -> bool:
    """Whether a step is a stage of its own, with one job."""
    collects = step.signature.shape == "collect" and group_grain(graph, step) == RUN
    return step.grain == RUN or step.join is not None or collects


def cut(graph: Graph) -> dict[str, Stage]:
    """Cut the graph; stages come in an order in which each follows what it reads."""
    keys, impure = _stage_keys(graph)
    members: dict[object, list[str]] = {}
    for name in graph.steps:
        members.setdefault(keys[name], []).append(name)
    stage_of = {name: steps[0] for steps in members.values() for name in steps}
    carried = _carried(graph)
    reads: dict[str, dict[str, dict[str, None]]] = {steps[0]: {} for steps in members.values()}
    marks: dict[str, dict[str, None]] = {steps[0]: {} for steps in members.values()}
    after: dict[str, dict[str, None]] = {steps[0]: {} for steps in members.values()}
    for name, step in graph.steps.items():
        stage = stage_of[name]
        joins = _joins_between(graph, step)
        for column in dict.fromkeys([*inputs_of(graph, step), *carried.get(name, ())]):
            held = _nearest(joins, column, carried)
            source = PARAMS if held == PARAMS else stage_of[held]
            if source != stage:
                reads[stage].setdefault(source, {})[column] = None
        for other, mark in _marks(graph, step).items():
            if stage_of[other] != stage:
                reads[stage].setdefault(stage_of[other], {})
                marks[stage_of[other]] |= mark
        for other in step.after:
            after[stage][stage_of[other]] = None
    writes: dict[str, dict[str, None]] = {steps[0]: {} for steps in members.values()}
    for taken in reads.values():
        for source, columns in taken.items():
            if source != PARAMS:
                writes[source].update(columns)
    for binding in graph.outputs.values():
        read, openers = output_reads(graph, binding)
        for column in read:
            if owner(column) != PARAMS:
                writes[stage_of[holder(graph, output_grain(graph, binding), column, carried)]][column] = None
        for other in openers:
            marks[stage_of[other]][other] = None
    limits = _limits(graph)
    stages = {}
    for steps in members.values():
        first = steps[0]
        single = is_single(graph, graph.steps[first])
        root = RUN if single else root_of(graph, graph.steps[first].grain)
        stages[first] = Stage(
            name=first,
            steps=tuple(steps),
            root=root,
            reads={source: tuple(columns) for source, columns in reads[first].items()},
            writes=tuple(writes[first]),
            marks=tuple(marks[first]),
            after=tuple(name for name in after[first] if name != first),
            pure=not impure[first],
            limit=limits.get(root, PARTITION),
        )
    return _ordered(stages)


def output_grain(graph: Graph, binding: Binding) -> str:
    """The grain of an output's rows: the deepest of its references."""
    grains = [graph.steps[ref.step].out for ref in binding.refs if ref.step != PARAMS]
    return max(grains, key=lambda grain: len(graph.lineage(grain)), default=RUN)


def output_reads(graph: Graph, binding: Binding) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Columns that an output reads, and the openers of the grains between them."""
    columns = tuple(dict.fromkeys(column for ref in binding.refs for column in columns_of(graph, ref)))
    several = len({graph.steps[ref.step].out for ref in binding.refs if ref.step != PARAMS}) > 1
    return columns, tuple(_openers(graph, output_grain(graph, binding))) if several else ()


def _limits(graph: Graph) -> dict[str, int]:
    """Per root grain, the smallest ``partition`` of the step that opens it and of the steps over its rows."""
    limits: dict[str, int] = {}
    for step in graph.steps.values():
        root = step.out if is_single(graph, step) else root_of(graph, step.grain)
        if step.partition:
            limits[root] = min(step.partition, limits.get(root, step.partition))
    return limits


def _stage_keys(graph: Graph) -> tuple[dict[str, object], dict[str, bool]]:
    """Per step, the key of its stage, and whether its results must not outlive the run.

    Equal keys share a stage; every component only grows along an edge, so the stages cannot form a cycle.
    """
    keys: dict[str, object] = {}
    level: dict[str, int] = {}
    #: Per step, the deepest level of each root's partitions that it depends on.
    reach: dict[str, dict[str, int]] = {}
    runreads: dict[str, frozenset[str]] = {}
    impure: dict[str, bool] = {}
    for name, step in graph.steps.items():
        columns = inputs_of(graph, step)
        data = dict.fromkeys([owner(column) for column in columns] + list(_row_steps(graph, step)))
        data.pop(PARAMS, None)
        reach[name] = _deepest(reach[other] for other in [*data, *step.after])
        impure[name] = not step.signature.pure or not step.cache
        if is_single(graph, step):
            keys[name] = name
            continue
        root = root_of(graph, step.grain)
        lineage = [other for other in data if other in level and root_of(graph, graph.steps[other].out) == root]
        values = [other for other in data if graph.steps[other].out == RUN]
        depth = max((level[o] + _breaks(graph.steps[o], step) for o in lineage), default=0)
        barriers = [reach[other].get(root, -1) + 1 for other in [*values, *step.after]]
        level[name] = max([depth, *barriers])
        own = {column for column in columns if owner(column) in (*values, PARAMS)}
        runreads[name] = frozenset(own).union(*(runreads[other] for other in lineage))
        impure[name] = impure[name] or any(impure[other] for other in lineage)
        reach[name] = _deepest([reach[name], {root: level[name]}])
        keys[name] = (root, level[name], runreads[name], impure[name], _kind(step))
    return keys, impure


def _deepest(levels: Iterable[Mapping[str, int]]) -> dict[str, int]:
    merged: dict[str, int] = {}
    for each in levels:
        for root, depth in each.items():
            merged[root] = max(depth, merged.get(root, -1))
    return merged


def _kind(step: Step) -> tuple[object, ...]:
    """What makes two steps need different jobs; cpu and memory do not, a job takes the maximum of those."""
    return (bool(step.needs.get("gpu")), tuple(step.needs.get("labels", ())), step.limit)


def _breaks(before: Step, step: Step) -> bool:
    return before.checkpoint or _kind(before) != _kind(step)


def _openers(graph: Graph, grain: str) -> list[str]:
    """The steps that opened a grain and those above it, as far as they lie in one job."""
    names = []
    while grain != RUN:
        names.append(grain)
        parents = graph.grains[grain].parents
        grain = parents[0] if len(parents) == 1 else RUN
    return names


def _row_steps(graph: Graph, step: Step) -> tuple[str, ...]:
    """Steps whose rows a step takes without a column: `rows`, a join's sides, and the openers of its grains."""
    names = dict.fromkeys(step.rows)
    sides = [step.join.left, step.join.right] if step.join else []
    grains = [graph.steps[side].out for side in sides] if step.join else [step.grain]
    names |= dict.fromkeys(sides)
    for grain in grains:
        names |= dict.fromkeys(_openers(graph, grain))
    return tuple(names)


def _marks(graph: Graph, step: Step) -> dict[str, dict[str, None]]:
    """Steps whose rows a step takes without a column → the marks it needs of them."""
    found: dict[str, dict[str, None]] = {other: {other: None} for other in _row_steps(graph, step)}
    if step.signature.shape == "collect" and (opener := expanded_below(graph, step)):
        found[opener][expansion(opener)] = None
    return found


def _carried(graph: Graph) -> dict[str, dict[str, None]]:
    """Per join step, the columns of its sides that steps below it read: its table takes them along."""
    carried: dict[str, dict[str, None]] = {name: {} for name, step in graph.steps.items() if step.join}

    def carry(columns: Iterable[str], joins: list[str]) -> None:
        for join in joins:
            above = set(graph.lineage(join)) - {join, RUN}
            carried[join] |= {
                column: None
                for column in columns
                if owner(column) != PARAMS and graph.steps[owner(column)].out in above
            }

    for binding in graph.outputs.values():
        carry(output_reads(graph, binding)[0], _joins_above(graph, output_grain(graph, binding)))
    # From the last step to the first, so that a join below a join passes its wishes up.
    for name in reversed(graph.steps):
        step = graph.steps[name]
        carry([*inputs_of(graph, step), *carried.get(name, ())], _joins_between(graph, step))
    return carried


def _joins_between(graph: Graph, step: Step) -> list[str]:
    """Joins that a step's rows descend from, nearest first; for a join step, those of its sides."""
    sides = graph.grains[step.out].parents if step.join else (step.grain,)
    return [join for side in sides for join in _joins_above(graph, side)]


def _joins_above(graph: Graph, grain: str) -> list[str]:
    return [each for each in graph.lineage(grain) if len(graph.grains[each].parents) == 2]


def holder(graph: Graph, grain: str, column: str, carried: Mapping[str, Iterable[str]]) -> str:
    """The step whose stage holds `column` for an output of `grain`: the nearest join that carried it, or its owner."""
    return _nearest(_joins_above(graph, grain), column, carried)


def _nearest(joins: list[str], column: str, carried: Mapping[str, Iterable[str]]) -> str:
    return next((join for join in joins if column in carried[join]), owner(column))


def _ordered(stages: dict[str, Stage]) -> dict[str, Stage]:
    ordered: dict[str, Stage] = {}

    def visit(name: str) -> None:
        if name in ordered or name == PARAMS:
            return
        for before in [*stages[name].reads, *stages[name].after]:
            visit(before)
        ordered[name] = stages[name]

    for name in stages:
        visit(name)
    return ordered
