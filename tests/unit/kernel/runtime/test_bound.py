"""Operators bound to options: every form an author may write, called as the executor calls it."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, TypedDict

import msgspec
import pytest

from sage_core import Batch, Context, Dataset, operator
from sage_core.common.operators import MARK
from sage_core.kernel.dataflow import signature
from sage_core.kernel.dataflow.graph import Step
from sage_core.kernel.runtime.bound import Bound
from sage_core.kernel.runtime.context import Opened, StepContext
from sage_core.platform.artifacts import ArtifactStore
from sage_core.testing.flows import Flows
from tests.unit.kernel.runtime import flow_operators as flow


@dataclass
class Point:
    x: int
    y: int = 7


class Size(msgspec.Struct, frozen=True):
    width: int


class Pair(NamedTuple):
    first: Point
    second: str = "-"


@dataclass
class Holder:
    pairs: list[Pair | None]
    by_name: dict[str, Pair]


class Loose(TypedDict):
    x: int


@operator("b.points", returns="text")
def points(points: Dataset[Point], labels: Dataset[str]) -> str:
    return ";".join(
        f"{label}{type(point).__name__}{point.x},{point.y}" for point, label in zip(points, labels, strict=True)
    )


@operator("b.pair", returns="text")
def pair(pair: Pair | None, size: Size, loose: Loose) -> str:
    return f"{pair and type(pair.first).__name__} {size.width} {type(loose).__name__}"


@operator("b.holder", returns="text")
def holder(holder: Holder, *, pair: Pair) -> str:
    named = holder.by_name["n"]
    return f"{[one and (one.first.x, one.second) for one in holder.pairs]} {named.first.y} {pair.first.x}"


@operator("b.spread", returns="text")
def spread(rows: Batch[Point]) -> Batch[str]:
    return Batch(f"{type(row).__name__}{row.x},{row.y}" for row in rows)


@operator("b.configured", returns="text")
def configured(text: str, *, at: Point, places: Sequence[Path], raw: dict[str, Any]) -> str:
    return f"{text} {at!r} {[type(place).__base__ is not str and place.name for place in places]} {raw}"


@operator("b.optional", returns="text")
def optional(text: str, other: str = "none", last: str = "end", *, mark: str = "!") -> str:
    return f"{text}{other}{last}{mark}"


@operator("b.asking", returns="step")
def asking(text: str, *, ctx: Context) -> str:
    return f"{ctx.step} {text}"


def bound(target: Any, *ports: str, context: Any = None, **options: Any) -> Bound:
    step = Step(name="s", use=getattr(target, MARK).name, signature=signature.of(target), grain="", out="")
    return Bound(step, target, ports, options, context)


def result(made: Bound, *values: Any) -> Any:
    """What one call of a plain function returns."""
    return asyncio.run(made.call().one(list(values)))


def test_ports_take_their_place_by_name_and_defaults_stay() -> None:
    assert result(bound(optional, "text"), "a") == "anoneend!"
    assert result(bound(optional, "text", "other"), "a", "b") == "abend!"
    assert result(bound(optional, "text", "last", mark="?"), "a", "z") == "anonez?"


def test_stored_dictionaries_arrive_as_the_records_an_author_asked_for() -> None:
    stored_points = [{"x": 1, "y": 2}, {"x": 3}]
    assert result(bound(points, "points", "labels"), stored_points, ["a", "b"]) == "aPoint1,2;bPoint3,7"
    stored: Mapping[str, Any] = {"first": {"x": 1}, "second": "b"}
    assert result(bound(pair, "pair", "size", "loose"), stored, {"width": 3}, {"x": 1}) == "Point 3 dict"
    assert result(bound(pair, "pair", "size", "loose"), None, {"width": 3}, {"x": 1}) == "None 3 dict"


def test_named_tuples_are_made_wherever_the_annotation_has_one() -> None:
    stored = {
        "pairs": [{"first": {"x": 1}, "second": "b"}, None, {"first": {"x": 2}}],
        "by_name": {"n": {"first": {"x": 3}}},
    }
    made = bound(holder, "holder", pair={"first": {"x": 4}, "second": "c"})
    assert result(made, stored) == "[(1, 'b'), None, (2, '-')] 7 4"


def test_ports_of_a_record_parameter_are_its_fields_and_unwired_ones_keep_their_default() -> None:
    both = asyncio.run(bound(spread, "x", "y").call().batches([[1, 2], [3, 4]], 2, 10))
    assert list(both.values) == ["Point1,3", "Point2,4"]
    one = asyncio.run(bound(spread, "x").call().batches([[1, 2]], 2, 10))
    assert list(one.values) == ["Point1,7", "Point2,7"]


def test_options_arrive_as_annotated_records_and_paths_inside_others_too() -> None:
    made = bound(configured, "text", at={"x": "5"}, places=["/a/b", "c"], raw={"x": 1})
    assert result(made, "t") == "t Point(x=5, y=7) ['b', 'c'] {'x': 1}"
    assert result(bound(flow.place, "text", folder="/a/b"), "t") == "Path b t"


def test_a_context_is_given_to_who_asks_for_it(tmp_path: Path) -> None:
    with Flows(tmp_path, {}).open_store() as store:
        artifacts = ArtifactStore(tmp_path / "artifacts")
        context = StepContext(
            run_id="r",
            step="s",
            base=tmp_path,
            client=None,  # type: ignore[arg-type] # the operator asks for no model
            artifacts=artifacts,
            opened=Opened(artifacts),
            store=store,
            warn=print,
        )
        assert result(bound(asking, "text", context=context), "t") == "s t"


def test_a_callable_is_opened_once_with_its_own_options_and_closed_once(tmp_path: Path) -> None:
    log = tmp_path / "log"
    made = bound(flow.Held, "text", prefix="<", suffix=">", log=str(log))
    assert not log.exists()
    assert [result(made, "a"), result(made, "b")] == ["<a>", "<b>"]
    made.close()
    made.close()
    assert log.read_text(encoding="utf-8") == "open\nclose\n"


def test_coroutines_and_iterators_are_called_as_what_they_are() -> None:
    assert result(bound(flow.upper_later, "text"), "x") == "X"
    step = Step(name="s", use="f.split", signature=signature.of(flow.split), grain="", out="s")
    context: Any = None
    items = asyncio.run(Bound(step, flow.split, ["text"], {}, context).call().rows([["a b"]], 1))
    assert list(items.values) == [[flow.Word("a", 0), flow.Word("b", 1)]]


def test_each_fold_starts_empty_and_takes_records_in_pieces() -> None:
    made = bound(flow.Tally, "id", "text", sep="+")
    for _ in range(2):
        add, finish = made.fold()
        # Ports come in the order they are wired, whatever the order of the record's fields.
        add([1, 2], ["a", "b"])
        add([3], ["c"])
        assert finish() == "1a+2b+3c"


@pytest.mark.parametrize("value", [{"x": "no"}, {"y": 1}], ids=str)
def test_a_value_that_is_not_the_record_is_the_rows_failure(value: dict[str, Any]) -> None:
    with pytest.raises(msgspec.ValidationError):
        result(bound(points, "points", "labels"), [value], ["a"])
