from __future__ import annotations

import re
from typing import Any

from sage_core.cli import draw
from sage_core.kernel.dataflow.graph import RUN, Binding, Grain, Graph, Join, Param, Ref, Repeat, Shape, Signature, Step


def step(name: str, shape: Shape, grain: str = RUN, out: str | None = None, reads: str = "", **more: Any) -> Step:
    """A step whose ports are ``port=step.column`` words."""
    ports = {}
    for word in reads.split():
        port, _, path = word.partition("=")
        source, _, column = path.partition(".")
        ports[port] = Binding(refs=(Ref(step=source, column=column),))
    return Step(
        name=name,
        use=f"t.{name}",
        signature=Signature(operator=f"t.{name}", shape=shape),
        grain=grain,
        out=grain if out is None else out,
        ports=ports,
        **more,
    )


def graph() -> Graph:
    steps = [
        step("files", "expand", out="files", options={"path": "${params.docs}"}),
        step("parse", "map", "files", reads="file=files.path"),
        step("chunk", "expand", "files", "chunk", reads="text=parse.text"),
        step("short", "filter", "chunk", reads="text=chunk.text"),
        step(
            "embed", "map", "chunk", reads="text=chunk.text", rows=("short",), matrix=({"model": "a"}, {"model": "b"})
        ),
        step("index", "collect", "chunk", RUN, reads="vector=embed.vector text=chunk.text path=files.path"),
        step("vote", "collect", "chunk", "files", reads="text=chunk.text"),
        step("ask", "map", reads="text=params.question index=index.index", when='params.question != ""'),
        step("end", "sink", reads="text=ask.text", after=("files",), repeat=Repeat(max=3, until="done")),
    ]
    return Graph(
        name="ask-docs",
        base="/",
        params={
            "docs": Param(name="docs", type="path"),
            "question": Param(name="question", type="string", required=False),
        },
        grains={
            RUN: Grain(name=RUN),
            "files": Grain(name="files", parents=(RUN,)),
            "chunk": Grain(name="chunk", parents=("files",)),
        },
        steps={one.name: one for one in steps},
        outputs={
            "answer": Binding(refs=(Ref(step="ask", column="text"), Ref(step="end", column="text", optional=True)))
        },
    )


def test_text_indents_by_grain_and_says_what_is_read_and_done() -> None:
    assert draw.text(graph()) == (
        "ask-docs\n"
        "params: docs, question?\n"
        "\n"
        "files      t.files  → rows of files\n"
        "  parse    t.parse  file ← files.path\n"
        "  chunk    t.chunk  parse.text  → rows of chunk\n"
        "    short  t.short  chunk.text  keeps some\n"
        "    embed  t.embed  chunk.text, rows of short  × 2 cells\n"
        "    index  t.index  embed.vector, chunk.text, files.path  → one value\n"
        "    vote   t.vote   chunk.text  → one row per files\n"
        'ask        t.ask    text ← params.question, index.index  when params.question != ""\n'
        "end        t.end    ask.text, after files  no columns, until done, at most 3 times\n"
        "\n"
        "outputs: answer ← ask.text or end.text?\n"
    )


def test_edges_are_one_per_pair_and_line() -> None:
    found = [(edge.source, edge.target, edge.line, edge.label) for edge in draw.edges(graph())]
    assert ("params", "files", "setting", "docs") in found
    assert ("short", "embed", "rows", "") in found
    assert ("files", "end", "order", "") in found
    assert ("ask", "outputs", "data", "text") in found
    assert len(found) == len({entry[:3] for entry in found}) == 16


def test_mermaid_nests_grains_and_draws_each_step_and_edge_once() -> None:
    picture = draw.mermaid(graph())
    lines = picture.splitlines()
    assert lines[0] == "flowchart TD"
    files = lines.index('  subgraph grain_files["rows of files"]')
    chunk = lines.index('    subgraph grain_chunk["rows of chunk"]')
    assert files < lines.index('    step_parse["parse<br/>t.parse"]') < chunk
    assert chunk < lines.index('      step_embed["embed<br/>t.embed"]')
    assert '  step_end(["end<br/>t.end"])' in lines
    assert "  step_chunk -->|text| step_index" in lines
    assert "  step_files -.-> step_end" in lines
    assert sum(line.strip() == "end" for line in lines) == picture.count("subgraph") == 2
    for name in graph().steps:
        assert len(re.findall(rf"^ *step_{name}\W*\"", picture, re.M)) == 1


def test_dot_clusters_grains_and_escapes_names() -> None:
    odd = Graph(name='a "b"', base="/", grains=graph().grains, steps=graph().steps)
    picture = draw.dot(odd)
    assert picture.startswith('digraph "a \\"b\\"" {')
    assert picture.count("{") == picture.count("}") == 3
    assert '    subgraph cluster_chunk {\n      label="rows of chunk";' in picture
    assert "  step_short -> step_embed [style=bold];" in picture
    assert '  params -> step_ask [style=solid, label="question"];' in picture
    assert "outputs" not in picture


def test_a_join_has_its_own_grain_below_both_parents() -> None:
    on = ((Ref(step="left", column="id"), Ref(step="right", column="key")),)
    join = step("both", "join", "both", join=Join(left="left", right="right", on=on))
    steps = [step("left", "expand", out="left"), step("right", "expand", out="right"), join]
    grains = {
        RUN: Grain(name=RUN),
        "left": Grain(name="left", parents=(RUN,)),
        "right": Grain(name="right", parents=(RUN,)),
        "both": Grain(name="both", parents=("left", "right")),
    }
    joined = Graph(name="join", base="/", grains=grains, steps={one.name: one for one in steps})
    assert "    both  t.both   left with right where left.id = right.key  → rows of both" in draw.text(joined)
    assert "  step_left -->|id| step_both" in draw.mermaid(joined)
    assert '  subgraph grain_both["rows of both"]' in draw.mermaid(joined)


def test_pictures_are_the_same_every_time_and_labels_cannot_break_out() -> None:
    assert (draw.mermaid(graph()), draw.dot(graph()), draw.text(graph())) == (
        draw.mermaid(graph()),
        draw.dot(graph()),
        draw.text(graph()),
    )
    odd = Graph(name="odd", base="/", grains={RUN: Grain(name=RUN)}, steps={"a": step("a", "map")})
    hostile = Graph(
        name="odd",
        base="/",
        grains=odd.grains,
        steps={"a": Step(name="a", use='x"]<b>|', signature=odd.steps["a"].signature, grain=RUN, out=RUN)},
    )
    assert 'step_a["a<br/>x#quot;]#lt;b#gt;#124;"]' in draw.mermaid(hostile)
