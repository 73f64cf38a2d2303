"""Checks a workflow whole: from a TOML file, or a tree built in Python, to a `Graph` or every error at once."""

from __future__ import annotations

import heapq
from collections.abc import Mapping
from graphlib import CycleError, TopologicalSorter
from pathlib import Path as FilePath
from typing import Any

import msgspec

from sage_core.common.host import Host
from sage_core.common.records import ModelSpec
from sage_core.kernel.dataflow import join, params, sections, spec
from sage_core.kernel.dataflow.columns import Columns
from sage_core.kernel.dataflow.diagnostics import Problems
from sage_core.kernel.dataflow.draft import RESERVED, Draft, draft, read_input
from sage_core.kernel.dataflow.grains import Grains, Source
from sage_core.kernel.dataflow.graph import Binding, Graph, Ref, Step
from sage_core.kernel.dataflow.options import Options
from sage_core.kernel.dataflow.resolve import Resolver
from sage_core.kernel.dataflow.settings import Settings
from sage_core.kernel.dataflow.spans import Path


def load(
    path: FilePath,
    host: Host,
    *,
    profile: str | None = None,
    known_models: Mapping[str, Mapping[str, Any]] | None = None,
) -> Graph:
    """Read and check a workflow file; raises `InvalidWorkflow` with all of its errors, in file order.

    `known_models` are the ``[models]`` of sage.toml; those of the file go before them.
    """
    problems = Problems()
    document = spec.read(path, problems, profile)
    return _check(document, problems, host, path.stem, known_models or {})


def check_tree(
    tree: Mapping[str, Any],
    host: Host,
    *,
    base: FilePath,
    name: str = "workflow",
    known_models: Mapping[str, Mapping[str, Any]] | None = None,
) -> Graph:
    """Check a workflow that was built in Python, as the tables of a file; relative paths start at `base`."""
    return _check(spec.from_tree(tree, base), Problems(), host, name, known_models or {})


def _check(
    document: spec.Document, problems: Problems, host: Host, name: str, known: Mapping[str, Mapping[str, Any]]
) -> Graph:
    top = Settings(document.tree, (), problems)
    given = sections.top(top)
    declared = {
        key: msgspec.structs.replace(param, default=document.rebase(param.default, ("params", key, "default")))
        if param.type == "path"
        else param
        for key, param in params.read(top).items()
    }
    usable, broken = sections.known_models(known, host, document.base)
    own = sections.models(top, host, document.folder)
    models: dict[str, ModelSpec] = {**usable, **own}
    grains, columns = Grains(), Columns(declared, problems)
    options = Options(document, declared, models, {key: why for key, why in broken.items() if key not in own})
    resolver = Resolver(document, columns, grains, options, problems)
    steps = _steps(top, host, given.get("defaults", {}), resolver, problems)
    outputs = _outputs(top, columns, resolver)
    triggers = sections.triggers(top, declared)
    document.raise_if(problems)
    read = columns.read_params | options.read
    return Graph(
        name=given.get("name") or name,
        base=str(document.base),
        params=declared,
        models=models,
        grains=grains.found,
        steps=steps,
        outputs=outputs or _leaves(steps, columns),
        end_to_end=given.get("slo", {}).get("end_to_end"),
        triggers=triggers,
        warnings=(
            *resolver.warnings,
            *(_unread(steps, columns) if outputs else ()),
            *(f"param {param!r} is never used" for param in declared if param not in read),
        ),
    )


def _steps(
    top: Settings, host: Host, defaults: Mapping[str, Any], resolver: Resolver, problems: Problems
) -> dict[str, Step]:
    drafts: dict[str, Draft] = {}
    for name, settings in top.sections("steps", "step"):
        params.check_name("step", name, settings, RESERVED)
        drafts[name] = draft(name, settings, host, defaults)
        if drafts[name].use == "join":
            join.read(drafts[name])
    if not drafts and not problems:
        problems.add(("steps",), "the workflow has no steps", 'write [steps.NAME] with use = "…"', "key")
    ordered, cyclic = _ordered(drafts, problems)
    resolver.expect(drafts.values())
    found = {name: resolver.resolve(drafts[name], name in cyclic) for name in ordered}
    return {name: step for name, step in found.items() if step is not None}


def _ordered(drafts: Mapping[str, Draft], problems: Problems) -> tuple[list[str], set[str]]:
    """Steps in file order as far as each comes after what it reads, and those that are part of a cycle."""
    waits = {
        name: {step: path for step, path in reversed(list(made.reads())) if step in drafts}
        for name, made in drafts.items()
    }
    names = list(drafts)
    place = {name: index for index, name in enumerate(names)}
    before = {name: sorted(steps, key=place.__getitem__) for name, steps in waits.items()}
    cyclic: set[str] = set()
    while cycle := _cycle(before):
        first = cycle.index(min(cycle, key=place.__getitem__))
        _report(cycle[first:] + cycle[:first], waits, problems)
        cyclic.update(cycle)
        for name in cycle:
            before[name] = [step for step in before[name] if step not in cycle]
    sorter = TopologicalSorter(before)
    sorter.prepare()
    ready = [place[name] for name in sorter.get_ready()]
    heapq.heapify(ready)
    ordered: list[str] = []
    while ready:
        ordered.append(names[heapq.heappop(ready)])
        sorter.done(ordered[-1])
        for name in sorter.get_ready():
            heapq.heappush(ready, place[name])
    return ordered, cyclic


def _cycle(before: Mapping[str, list[str]]) -> list[str]:
    """Steps that each wait for the next, and the last for the first; none when there is no cycle."""
    try:
        TopologicalSorter(before).prepare()
    except CycleError as error:
        # It names them the other way round, and the first of them again at the end.
        return list(error.args[1][:0:-1])
    return []


def _report(cycle: list[str], waits: Mapping[str, Mapping[str, Path]], problems: Problems) -> None:
    first = cycle[0]
    if len(cycle) == 1:
        message = f"step {first!r} reads itself"
        help = 'a loop on one step is written repeat = { max = …, until = "…", feed = { port = "column" } }'
    else:
        message = f"the steps form a cycle: {' → '.join([*cycle, first])}"
        help = "each step reads the one after it; remove one of these references"
    problems.add(waits[first][cycle[1 % len(cycle)]], message, help)


def _outputs(top: Settings, columns: Columns, resolver: Resolver) -> dict[str, Binding]:
    section = top.section("outputs")
    found: dict[str, Binding] = {}
    for name in section.table:
        given = read_input(section, name)
        if given is None:
            continue
        if not given.refs:
            section.add(name, f"output {name!r} is a literal; an output names a column", 'write "step.column"')
        refs: list[Ref] = []
        sources: list[Source] = []
        for ref, path in given.refs:
            looked = columns.find(ref, path)
            if looked is not None:
                refs.append(looked.ref)
                source = columns.source(looked, path)
                sources += [source] if source else []
        resolver.deepest(sources)
        found[name] = Binding(refs=tuple(refs))
    return found


def _leaves(steps: Mapping[str, Step], columns: Columns) -> dict[str, Binding]:
    """What a workflow without ``[outputs]`` gives: the steps that nothing reads, each under its name."""
    found = {}
    for name, step in steps.items():
        if name not in columns.read and step.columns:
            only = next(iter(step.columns)) if len(step.columns) == 1 else ""
            found[name] = Binding(refs=(Ref(step=name, column=only),))
    return found


def _unread(steps: Mapping[str, Step], columns: Columns) -> list[str]:
    return [
        f"step {name!r} is computed and nothing reads it: name it in [outputs], or remove it"
        for name, step in steps.items()
        if name not in columns.read | columns.awaited and step.signature.shape != "sink"
    ]
