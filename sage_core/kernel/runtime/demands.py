"""What the jobs of each stage ask of a node, and what no node could ever give."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from sage_core.common.errors import UsageError
from sage_core.common.records import ModelSpec, Needs, Node, Record
from sage_core.kernel.control_plane.model_specs import engine_needs
from sage_core.kernel.dataflow.graph import Graph
from sage_core.kernel.runtime.prepared import Prepared, used_models
from sage_core.kernel.scheduler.ledger import lacks, needs_of, needs_text
from sage_core.kernel.scheduler.node import GPU


class Demand(Record):
    """What a job of one stage asks for."""

    needs: Needs
    #: The same as the store keeps it.
    text: str
    #: Models that its steps name.
    models: tuple[str, ...]


def demands(prepared: Prepared) -> dict[str, Demand]:
    """What each stage asks for: all its steps, and a node that can hold the models they call.

    The engine of a model reserves for itself, whoever calls it; a job takes only the labels from it.
    """
    found = {}
    for name, stage in prepared.stages.items():
        steps = [prepared.graph.steps[step] for step in stage.steps]
        models = sorted({model for step in steps for model in used_models(step, prepared.options[step.name])})
        engines = [engine_needs(prepared.models[model]) for model in models if model in prepared.models]
        labels = {label for needs in engines for label in (*needs.labels, *((GPU,) if needs.gpu else ()))}
        needs = needs_of([*(step.needs for step in steps), {"labels": sorted(labels)}])
        found[name] = Demand(needs=needs, text=needs_text(needs), models=tuple(models))
    return found


def refuse_unmet(prepared: Prepared, nodes: Callable[[], Sequence[Node]]) -> None:
    """Raise `UsageError` that names what is missing for each step and model that no node could ever run."""
    problems = unmet(prepared.graph, prepared.options, prepared.models, nodes)
    if problems:
        raise UsageError(
            "\n".join(problems),
            "lower its needs, start a worker where it is met, or say what this machine has: [cluster]",
        )


def unmet(
    graph: Graph,
    options: Mapping[str, Mapping[str, Any]],
    models: Mapping[str, ModelSpec],
    nodes: Callable[[], Sequence[Node]],
) -> list[str]:
    """Say what each node lacks for every step and model that none of them could ever run.

    Args:
        options: of each step, where models are named.
        nodes: asked only where something is needed.
    """
    used = {model for name, step in graph.steps.items() for model in used_models(step, options[name])}
    asked = {f"step {name!r}": needs_of([step.needs]) for name, step in graph.steps.items()}
    asked |= {f"model {name!r}": engine_needs(models[name]) for name in sorted(used & models.keys())}
    asked = {what: needs for what, needs in asked.items() if needs != Needs()}
    known = nodes() if asked else ()
    problems = []
    for what, needs in asked.items():
        missing = {node.name: lacks(node, needs) for node in known}
        if all(missing.values()):
            told = "; ".join(f"node {name!r} lacks {', '.join(words)}" for name, words in missing.items())
            problems.append(f"{what} can run nowhere: {told}")
    return problems
