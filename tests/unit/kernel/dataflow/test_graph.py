from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sage_core.common.records import ModelSpec
from sage_core.kernel.dataflow import graph as graphs
from sage_core.kernel.dataflow.graph import (
    RUN,
    Binding,
    Grain,
    Graph,
    Join,
    Option,
    Param,
    Port,
    Ref,
    Repeat,
    Retry,
    Signature,
    Step,
    Trigger,
    Type,
    decode,
    encode,
)

VECTOR = Type(kind="vector", dim=384)
CHUNK = Type(kind="record", name="Chunk", fields={"text": Type(kind="str"), "end": Type(kind="int", optional=True)})


def whole() -> Graph:
    """A graph in which every record of the module stands, with values that are not the defaults."""
    signature = Signature(
        operator="t.embed",
        shape="map",
        ports=(Port(name="text", type=Type(kind="list", item=CHUNK), many="batch", required=False),),
        options=(Option(name="model", type=Type(kind="literal", values=("a", 1, True)), default="a", is_model=True),),
        columns={"vector": VECTOR},
        batched=True,
        context_in=("__init__",),
    )
    ref = Ref(step="files", column="chunk", fields=("text",), optional=True)
    files = Step(
        name="files", use="t.files", signature=Signature(operator="t.files", shape="expand"), grain="", out="f"
    )
    embed = Step(
        name="embed",
        use="t.embed",
        signature=signature,
        grain="f",
        out="j",
        ports={"text": Binding(refs=(ref,)), "other": Binding(value={"x": [1, None, 2.5]})},
        options={"model": "${params.model}"},
        columns={"vector": VECTOR},
        when="files.chunk != null",
        when_refs=(ref,),
        matrix=({"model": "a"}, {"model": 1}),
        repeat=Repeat(max=3, until="done", feed={"text": "text"}),
        join=Join(left="files", right="other", on=((ref, ref),), how="left"),
        max_errors=0.5,
        retry=Retry(max=2, on=("timeout",)),
        needs={"cpu": 0.5, "labels": ["a100"]},
    )
    return Graph(
        name="g",
        base="/flows",
        params={"model": Param(name="model", type="string", choices=("a", "b"), secret=False)},
        models={"a": ModelSpec(name="a", backend="null", options={"threads": 2})},
        grains={RUN: Grain(name=RUN), "f": Grain(name="f", parents=(RUN,)), "j": Grain(name="j", parents=("f", "f"))},
        steps={"files": files, "embed": embed},
        outputs={"vector": Binding(refs=(Ref(step="embed", column="vector"),))},
        end_to_end=2.0,
        triggers=(Trigger(kind="cron", settings={"schedule": "0 3 * * *"}),),
        warnings=("one",),
    )


def test_a_graph_survives_storage_whole() -> None:
    assert decode(encode(whole())) == whole()


def test_equal_graphs_have_equal_bytes_and_others_have_not() -> None:
    first = encode(whole())
    assert encode(whole()) == first
    assert encode(decode(first)) == first
    changes: list[dict[str, Any]] = [{"name": "h"}, {"end_to_end": None}, {"warnings": ()}, {"steps": {}}]
    for change in changes:
        assert encode(msgspec.structs.replace(whole(), **change)) != first


def test_steps_keep_their_order() -> None:
    graph = whole()
    turned = msgspec.structs.replace(graph, steps=dict(reversed(graph.steps.items())))
    assert list(decode(encode(turned)).steps) == ["embed", "files"]
    assert encode(turned) != encode(graph)


@pytest.mark.parametrize(
    ("part", "wrong"),
    [
        (b'"kind":"vector"', b'"kind":"tensor"'),
        (b'"shape":"expand"', b'"shape":"widen"'),
        (b'"how":"left"', b'"how":1'),
    ],
)
def test_bytes_that_are_no_graph_are_refused(part: bytes, wrong: bytes) -> None:
    stored = encode(whole())
    assert part in stored
    with pytest.raises(msgspec.ValidationError):
        decode(stored.replace(part, wrong))


def test_a_graph_is_fixed() -> None:
    graph = whole()
    for record in (graph, graph.steps["embed"], VECTOR, graph.grains["f"]):
        with pytest.raises(AttributeError):
            record.name = "other"  # type: ignore[misc]


def lineage(grain: str, **parents: tuple[str, ...]) -> tuple[str, ...]:
    grains = {RUN: Grain(name=RUN)} | {name: Grain(name=name, parents=above) for name, above in parents.items()}
    return Graph(name="g", base="/", grains=grains).lineage(grain)


def test_a_lineage_goes_from_the_grain_to_the_run() -> None:
    parents = {"a": (RUN,), "b": ("a",), "c": ("b",), "other": (RUN,)}
    assert lineage("c", **parents) == ("c", "b", "a", RUN)
    assert lineage("other", **parents) == ("other", RUN)
    assert lineage(RUN, **parents) == (RUN,)


def test_a_joins_lineage_has_both_sides_and_the_run_last_however_deep_they_are() -> None:
    parents = {"a": (RUN,), "c": (RUN,), "d": ("c",), "j": ("a", "d"), "below": ("j",)}
    assert lineage("below", **parents) == ("below", "j", "a", "d", "c", RUN)


@given(st.lists(st.tuples(st.integers(0, 20), st.integers(0, 20), st.booleans()), max_size=12))
def test_a_lineage_is_closed_under_parents(drawn: list[tuple[int, int, bool]]) -> None:
    names = [RUN]
    grains = {RUN: Grain(name=RUN)}
    for index, (one, two, join) in enumerate(drawn):
        picked = dict.fromkeys([names[one % len(names)], *([names[two % len(names)]] if join else [])])
        # A join's sides are rows, not the run.
        parents = tuple(name for name in picked if name != RUN) if len(picked) > 1 else tuple(picked)
        names.append(f"g{index}")
        grains[names[-1]] = Grain(name=names[-1], parents=parents)
    for name in names:
        found = graphs.lineage(grains, name)
        assert (found[0], found[-1]) == (name, RUN)
        assert len(set(found)) == len(found)
        assert {parent for grain in found for parent in grains[grain].parents} | {name} == set(found)
