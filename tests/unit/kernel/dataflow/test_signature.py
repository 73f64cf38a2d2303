from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypedDict

import msgspec
import pytest

from sage_core import Artifact, ArtifactDir, Batch, Context, Dataset, Keep, RowError, Vector, Vectors, operator
from sage_core.common.errors import BadSignature, OperatorError
from sage_core.kernel.dataflow import signature, types
from sage_core.kernel.dataflow.graph import Signature

if TYPE_CHECKING:
    pass


class Chunk(TypedDict):
    text: str
    start: int


@dataclass
class Entry:
    vector: Vector
    text: str
    path: str
    start: int | None = None


class Index(Artifact):
    pass


def brief(found: Signature) -> str:
    """The signature on one line: ports (many), options, shape and columns."""
    ports = ", ".join(
        f"{port.name}{'' if port.required else '?'}: {types.show(port.type)} {port.many}".removesuffix(" one")
        for port in found.ports
    )
    options = ", ".join(
        f"{option.name}: {types.show(option.type)}" + ("" if option.required else f" = {option.default!r}")
        for option in found.options
    )
    columns = ", ".join(f"{name}: {types.show(type_)}" for name, type_ in found.columns.items())
    return f"({ports}; {options}) {found.shape} ({columns})"


def test_a_function_with_a_record_return_names_its_columns() -> None:
    @operator("rag.chunk")
    def chunk(text: str, *, size: int = 256, overlap: int = 32) -> Iterator[Chunk]:
        """Cut a text.

        More.
        """
        yield {"text": text[:size], "start": overlap}

    found = signature.of(chunk)
    assert brief(found) == "(text: str; size: int = 256, overlap: int = 32) expand (text: str, start: int)"
    assert (found.operator, found.doc, found.is_record, found.is_async) == ("rag.chunk", "Cut a text.", True, False)


def test_an_async_batch_operator_with_context() -> None:
    @operator("llm.embed", returns="vector", models=["model"], memo=True)
    async def embed(text: Batch[str], *, model: str, ctx: Context) -> Batch[Vector]:
        return Batch()

    found = signature.of(embed)
    assert brief(found) == "(text: str batch; model: str) map (vector: Vector)"
    assert (found.batched, found.is_async, found.wants_context, found.memo) == (True, True, True, True)
    assert found.options[0].is_model


def test_a_bare_return_is_one_column_named_value() -> None:
    @operator("t.length")
    def length(text: str, factor: float = 1.0) -> int:
        return len(text)

    assert brief(signature.of(length)) == "(text: str, factor?: float; ) map (value: int)"


def test_none_is_a_sink() -> None:
    @operator("t.write")
    def write(text: str, *, path: Path) -> None:
        path.write_text(text)

    found = signature.of(write)
    assert brief(found) == "(text: str; path: path) sink ()"
    assert found.options[0].is_path


def test_the_only_batch_of_a_record_spreads_its_fields_over_the_ports() -> None:
    @operator("t.score", returns="score")
    def score(rows: Batch[Entry], query: str) -> Batch[float | RowError]:
        return Batch(0.0 for _ in rows)

    found = signature.of(score)
    assert brief(found) == (
        "(vector: Vector batch, text: str batch, path: str batch, start?: int | None batch, query: str; ) "
        "map (score: float)"
    )
    assert found.record_port == "rows"
    assert signature.record_class(score) is Entry


def test_two_batches_stay_two_ports() -> None:
    @operator("t.pair")
    def pair(rows: Batch[Chunk], texts: Batch[str]) -> Batch[Chunk]:
        return rows

    found = signature.of(pair)
    assert brief(found) == "(rows: Chunk batch, texts: str batch; ) map (text: str, start: int)"
    assert found.record_port == ""
    assert signature.record_class(pair) is None


def test_a_batched_filter_and_a_batched_sink() -> None:
    @operator("t.longest")
    def longest(text: Batch[str]) -> Batch[Keep]:
        return Batch(Keep(bool(entry)) for entry in text)

    @operator("t.print")
    def write(text: Batch[str]) -> None: ...

    assert brief(signature.of(longest)) == "(text: str batch; ) filter (text: str)"
    assert brief(signature.of(write)) == "(text: str batch; ) sink ()"
    assert signature.of(longest).batched


def test_vectors_are_a_batch_of_vectors_in_one_block() -> None:
    @operator("t.normalise", returns="vector")
    def normalise(vector: Vectors, weight: Batch[float] | None = None) -> Vectors:
        return vector

    found = signature.of(normalise)
    assert brief(found) == "(vector: Vector batch, weight?: float batch; ) map (vector: Vector)"
    assert [port.block for port in found.ports] == [True, False]


def test_a_dataset_port_collects() -> None:
    @operator("t.mean", returns="mean")
    def mean(score: Dataset[float], weight: float = 1.0) -> float:
        return sum(score) * weight

    @operator("t.report")
    def report(rows: Dataset[Chunk]) -> None: ...

    assert brief(signature.of(mean)) == "(score: float dataset, weight?: float; ) collect (mean: float)"
    assert brief(signature.of(report)) == "(text: str dataset, start: int dataset; ) collect ()"
    assert not signature.of(mean).batched


def test_a_fold_takes_ports_from_add_options_from_init_and_columns_from_finish() -> None:
    @operator("rag.index", returns="index", pure=False)
    class Build:
        """Build an index."""

        def __init__(self, *, mode: Literal["dense", "hybrid"] = "dense", ctx: Context) -> None: ...

        def add(self, rows: Batch[Entry]) -> None: ...

        def finish(self, out: ArtifactDir) -> Index:
            return out.publish(Index)

    found = signature.of(Build)
    assert brief(found) == (
        "(vector: Vector dataset, text: str dataset, path: str dataset, start?: int | None dataset; "
        "mode: Literal['dense', 'hybrid'] = 'dense') collect (index: Index)"
    )
    assert (found.form, found.takes_dir, found.context_in, found.init_options) == (
        "fold",
        True,
        ("__init__",),
        ("mode",),
    )
    assert (found.doc, found.pure, found.record_port) == ("Build an index.", False, "rows")
    assert found.columns["index"].target == f"{__name__}:Index"
    assert signature.record_class(Build) is Entry


def test_a_fold_by_parameters_without_a_directory() -> None:
    @operator("t.count", returns="count")
    class Count:
        async def add(self, text: Batch[str], query: str) -> None: ...

        async def finish(self) -> int:
            return 0

    found = signature.of(Count)
    assert brief(found) == "(text: str dataset, query: str; ) collect (count: int)"
    assert (found.takes_dir, found.is_async) == (False, True)


def test_a_callable_class_has_one_table_of_options() -> None:
    @operator("t.search", returns="hits")
    class Search:
        def __init__(self, *, path: str) -> None: ...

        def __call__(self, query: str, *, k: int = 5, ctx: Context) -> list[str]:
            return []

        def close(self) -> None: ...

    found = signature.of(Search)
    assert brief(found) == "(query: str; path: str, k: int = 5) map (hits: list[str])"
    assert (found.form, found.init_options, found.context_in) == ("callable", ("path",), ("__call__",))


def test_defaults_are_plain_values() -> None:
    @operator("t.options")
    def options(*, names: list[str] = ("a",), place: Path = Path("x")) -> int:  # type: ignore[assignment]
        return len(names)

    assert [option.default for option in signature.of(options).options] == [["a"], "x"]


def test_signatures_are_encodable_and_come_back_equal() -> None:
    @operator("t.score", returns="score")
    def score(rows: Batch[Entry], query: str, *, limit: float | None = 2) -> Batch[float]:
        return Batch()

    found = signature.of(score)
    assert msgspec.json.decode(msgspec.json.encode(found), type=Signature) == found


# ---------------------------------------------------------------- refused


def union(text: int | str) -> int:
    return 0


def mixed(a: Batch[int], b: Dataset[int]) -> int:
    return 0


def bare_batch(a: Batch) -> Batch[int]:  # type: ignore[type-arg]
    return Batch()


def default(a: int, *, size: int = "big") -> int:  # type: ignore[assignment]
    return 0


def vector_option(*, vector: Vector) -> int:
    return 0


def batch_option(*, rows: Batch[int]) -> int:
    return 0


def optional_batch(a: Batch[int] | None) -> Batch[int]:
    return Batch()


def clashing_ports(rows: Batch[Chunk], text: str) -> Batch[int]:
    return Batch()


class Positional:
    def __init__(self, size: int) -> None: ...

    def __call__(self, text: str) -> int:
        return 0


class Neither:
    pass


class Both:
    def add(self, a: Batch[int]) -> None: ...
    def finish(self) -> int:
        return 0

    def __call__(self, a: int) -> int:
        return a


class Clash:
    def __init__(self, *, size: int) -> None: ...

    def __call__(self, text: str, *, size: int) -> int:
        return 0


class RowFold:
    def add(self, a: int) -> None: ...
    def finish(self) -> int:
        return 0


class OddFinish:
    def add(self, a: Batch[int]) -> None: ...
    def finish(self, out: str) -> int:
        return 0


class HalfAsync:
    async def add(self, a: Batch[int]) -> None:
        await asyncio.sleep(0)

    def finish(self) -> int:
        return 0


REFUSED: list[tuple[Any, str, str]] = [
    (union, "parameter 'text': int | str: only `T | None`", "choose one type"),
    (mixed, "mixes Batch and Dataset", "Dataset[T] for all"),
    (bare_batch, "parameter 'a' does not say what it holds", "`Batch[str]`"),
    (default, "parameter 'size': the default does not fit: expected int, got 'big'", "mend"),
    (vector_option, "parameter 'vector': no TOML value is a Vector", "make it a port"),
    (batch_option, "parameter 'rows' holds rows but is an option", "before the `*`"),
    (optional_batch, "may be None but has no default", "`a: Batch[int] | None = None`"),
    (clashing_ports, "two ports are named 'text'", "rename"),
    (Positional, "__init__ takes size by position", "write a `*`"),
    (Neither, "has neither __call__ nor add and finish", "write __call__"),
    (Both, "has both __call__ and add/finish", "write __call__"),
    (Clash, "parameter 'size' of __call__ is an option of __init__ too", "rename"),
    (RowFold, "add takes no batch", "Batch[Record]"),
    (OddFinish, "finish takes something else than a directory", "finish(self, out: ArtifactDir)"),
    (HalfAsync, "differ in colour", "both with `async def`"),
]


@pytest.mark.parametrize(("target", "problem", "help"), REFUSED, ids=[target.__name__ for target, *_ in REFUSED])
def test_what_cannot_be_an_operator_says_what_to_write(target: Any, problem: str, help: str) -> None:
    with pytest.raises(OperatorError) as caught:
        signature.of(operator("t.bad")(target))
    text = str(caught.value)
    assert text.startswith("operator 't.bad': ")
    assert problem in text
    assert help in text.split("help: ")[1]


def test_the_decorators_own_words_are_checked() -> None:
    @operator("t.models", models=["modle"])
    def models(text: str, *, model: str) -> int:
        return 0

    @operator("t.returns", returns="x")
    def returns(text: str) -> Chunk:
        return {"text": text, "start": 0}

    @operator("t.streamed", streamed="text", returns="txt")
    def streamed(text: str) -> str:
        return text

    with pytest.raises(BadSignature, match=r"streamed= names 'text', which is no column\n.*Did you mean 'txt'\?"):
        signature.of(streamed)
    with pytest.raises(BadSignature, match=r"models= names 'modle'.*\n.*Did you mean 'model'\?"):
        signature.of(models)
    with pytest.raises(BadSignature, match="leave `returns` out"):
        signature.of(returns)


def test_an_unmarked_function_is_no_operator() -> None:
    with pytest.raises(BadSignature, match="write @operator"):
        signature.of(len)
