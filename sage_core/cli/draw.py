"""Pictures of a graph, equal for equal graphs: Mermaid and DOT with a box per grain, plain text for a terminal."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Literal

from sage_core.common.records import Record
from sage_core.kernel.dataflow import references
from sage_core.kernel.dataflow.expressions import template_refs
from sage_core.kernel.dataflow.graph import RUN, Binding, Graph, Ref, Step

#: Stand for the run's parameters and the workflow's outputs where a step's name would be.
_PARAMS, _OUTPUTS = "params", "outputs"

_Line = Literal["data", "rows", "order", "setting"]


class Edge(Record):
    """Everything that one step takes from another in one way."""

    source: str
    target: str
    line: _Line
    #: Columns that are read, in the order of the ports; empty for rows and order.
    label: str = ""


def edges(graph: Graph) -> list[Edge]:
    """Every dependency of the graph, by target in step order, one per pair and line."""
    found: dict[tuple[str, str, _Line], dict[str, None]] = {}

    def add(target: str, line: _Line, refs: Iterable[Ref]) -> None:
        for ref in refs:
            labels = found.setdefault((ref.step, target, line), {})
            if ref.column:
                labels[references.show(ref).partition(".")[2]] = None

    for step in graph.steps.values():
        joined = (end for pair in (step.join.on if step.join else ()) for end in pair)
        add(step.name, "data", (ref for binding in step.ports.values() for ref in binding.refs))
        add(step.name, "data", (*step.when_refs, *joined))
        add(step.name, "setting", (Ref(step=space, column=name) for space, name in template_refs(step.options)))
        add(step.name, "rows", (Ref(step=name, column="") for name in step.rows))
        add(step.name, "order", (Ref(step=name, column="") for name in step.after))
    add(_OUTPUTS, "data", (ref for binding in graph.outputs.values() for ref in binding.refs))
    return [
        Edge(source=source, target=target, line=line, label=", ".join(labels))
        for (source, target, line), labels in found.items()
        if source in graph.steps or source == _PARAMS
    ]


def _children(graph: Graph, parent: str) -> list[str]:
    # A join's grain has two parents, and a box has one place: the run's.
    boxes = {name: grain.parents[0] if len(grain.parents) == 1 else RUN for name, grain in graph.grains.items()}
    return [name for name, box in boxes.items() if name != RUN and box == parent]


# ---------------------------------------------------------------- Mermaid

_MERMAID_LINES = {"data": "-->", "rows": "==>", "order": "-.->", "setting": "-.->"}
_MERMAID_SHAPES = {
    "map": ("[", "]"), "expand": ("[/", "\\]"), "collect": ("[\\", "/]"), "filter": ("{{", "}}"), "join": ("{", "}"),
    "sink": ("([", "])"),
}  # fmt: skip


def mermaid(graph: Graph) -> str:
    """A Mermaid flowchart: a box per grain, a shape per kind of step."""
    lines = ["flowchart TD"]
    used = edges(graph)
    if any(edge.source == _PARAMS for edge in used):
        lines.append(f"  {_PARAMS}[({_PARAMS})]")
    lines += _mermaid_grain(graph, RUN, "  ")
    if graph.outputs:
        lines.append(f"  {_OUTPUTS}[({_OUTPUTS})]")
    for edge in used:
        label = f"|{_mermaid_text(edge.label)}|" if edge.label else ""
        lines.append(f"  {_node(edge.source)} {_MERMAID_LINES[edge.line]}{label} {_node(edge.target)}")
    return "\n".join(lines) + "\n"


def _mermaid_grain(graph: Graph, grain: str, indent: str) -> Iterator[str]:
    for step in graph.steps.values():
        if step.grain == grain:
            left, right = _MERMAID_SHAPES[step.signature.shape]
            yield f'{indent}{_node(step.name)}{left}"{_mermaid_text(step.name)}<br/>{_mermaid_text(step.use)}"{right}'
    for child in _children(graph, grain):
        yield f'{indent}subgraph grain_{child}["rows of {_mermaid_text(child)}"]'
        yield from _mermaid_grain(graph, child, indent + "  ")
        yield f"{indent}end"


def _mermaid_text(text: str) -> str:
    for char, code in (("#", "#35;"), ('"', "#quot;"), ("|", "#124;"), ("<", "#lt;"), (">", "#gt;")):
        text = text.replace(char, code)
    return text


def _node(name: str) -> str:
    # The prefix keeps a step called `end` or `graph` from meaning something to Mermaid and DOT.
    return name if name in (_PARAMS, _OUTPUTS) else f"step_{name}"


# ---------------------------------------------------------------- DOT

_DOT_STYLES = {"data": "solid", "rows": "bold", "order": "dashed", "setting": "dotted"}
_DOT_SHAPES = {
    "map": "box", "expand": "trapezium", "collect": "invtrapezium", "filter": "hexagon", "join": "diamond",
    "sink": "oval",
}  # fmt: skip


def dot(graph: Graph) -> str:
    """A Graphviz digraph: a cluster per grain, a shape per kind of step."""
    lines = [f"digraph {_quoted(graph.name)} {{", "  rankdir=TB;"]
    used = edges(graph)
    if any(edge.source == _PARAMS for edge in used):
        lines.append(f"  {_PARAMS} [shape=cylinder];")
    lines += _dot_grain(graph, RUN, "  ")
    if graph.outputs:
        lines.append(f"  {_OUTPUTS} [shape=cylinder];")
    for edge in used:
        label = f", label={_quoted(edge.label)}" if edge.label else ""
        lines.append(f"  {_node(edge.source)} -> {_node(edge.target)} [style={_DOT_STYLES[edge.line]}{label}];")
    return "\n".join([*lines, "}"]) + "\n"


def _dot_grain(graph: Graph, grain: str, indent: str) -> Iterator[str]:
    for step in graph.steps.values():
        if step.grain == grain:
            label = _quoted(f"{step.name}\n{step.use}")
            yield f"{indent}{_node(step.name)} [shape={_DOT_SHAPES[step.signature.shape]}, label={label}];"
    for child in _children(graph, grain):
        yield f"{indent}subgraph cluster_{child} {{"
        yield f"{indent}  label={_quoted(f'rows of {child}')};"
        yield from _dot_grain(graph, child, indent + "  ")
        yield f"{indent}}}"


def _quoted(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n") + '"'


# ---------------------------------------------------------------- plain text


def text(graph: Graph) -> str:
    """One line per step, indented by its grain: name, operator, what it reads, what it does to rows."""
    steps = graph.steps.values()
    names = ["  " * _depth(graph, step.grain) + step.name for step in steps]
    width, used = max(map(len, names), default=0), max((len(step.use) for step in steps), default=0)
    lines = [graph.name]
    if graph.params:
        params = (f"{name}{'' if param.required else '?'}" for name, param in graph.params.items())
        lines.append("params: " + ", ".join(params))
    lines.append("")
    for name, step in zip(names, steps, strict=True):
        what = "  ".join(part for part in (_inputs(step), _effect(step)) if part)
        lines.append(f"{name:{width}}  {step.use:{used}}  {what}".rstrip())
    if graph.outputs:
        lines += ["", "outputs: " + ", ".join(f"{name} ← {_bound(binding)}" for name, binding in graph.outputs.items())]
    return "\n".join(lines) + "\n"


def _depth(graph: Graph, grain: str) -> int:
    return 0 if grain == RUN else 1 + max((_depth(graph, parent) for parent in graph.grains[grain].parents), default=0)


def _inputs(step: Step) -> str:
    if step.join is not None:
        pairs = " and ".join(f"{references.show(left)} = {references.show(right)}" for left, right in step.join.on)
        return f"{step.join.left} with {step.join.right} where {pairs}"
    parts = [_port(name, binding) for name, binding in step.ports.items()]
    parts += [f"rows of {name}" for name in step.rows] + [f"after {name}" for name in step.after]
    return ", ".join(parts)


def _port(name: str, binding: Binding) -> str:
    bound = _bound(binding)
    # A port that is fed by a column of its own name says nothing twice.
    return bound if bound.rpartition(".")[2] == name else f"{name} ← {bound}"


def _bound(binding: Binding) -> str:
    return " or ".join(references.show(ref) for ref in binding.refs) or references.literal(binding.value)


def _effect(step: Step) -> str:
    effects = {
        "map": "",
        "expand": f"→ rows of {step.out}",
        "collect": f"→ one row per {step.out}" if step.out != RUN else "→ one value",
        "filter": "keeps some",
        "sink": "no columns",
        "join": f"→ rows of {step.out}",
    }
    parts = [effects[step.signature.shape]]
    if step.matrix:
        parts.append(f"× {len(step.matrix)} cells")
    if step.when:
        parts.append(f"when {step.when}")
    if step.repeat is not None:
        parts.append(f"until {step.repeat.until}, at most {step.repeat.max} times")
    return ", ".join(part for part in parts if part)
