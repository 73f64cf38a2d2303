"""The fake backend passes the contracts, and backends that break one promise each do not."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

import numpy
import pytest

from sage_core.common.contracts import Backend
from sage_core.common.errors import ModelError
from sage_core.common.records import ModelSpec, Request, Token
from sage_core.testing.engine_contract import EmbedderContract, GeneratorContract, RerankerContract
from sage_core.testing.engines import FakeBackend, FakeEngine, FakeOptions


class Fake:
    spec = ModelSpec(name="fake", backend="fake", source="any")
    missing: ModelSpec | None = ModelSpec(name="fake", backend="fake", source="missing")
    changed_options: dict[str, object] = {"dimension": 8}

    def make_backend(self) -> Backend:
        return FakeBackend()


class TestFakeEmbedder(Fake, EmbedderContract):
    pass


class TestFakeGenerator(Fake, GeneratorContract):
    pass


class TestFakeMarkovGenerator(Fake, GeneratorContract):
    spec = ModelSpec(name="fake", backend="fake", options={"text": "markov"})


class TestFakeReranker(Fake, RerankerContract):
    pass


class Wrong(FakeEngine):
    """Each method breaks one promise, when it is the fault asked for."""

    fault = ""

    async def embed(self, texts: Sequence[str]) -> Any:
        rows = await super().embed(texts)
        match self.fault:
            case "batch":
                rows = rows + 0.01 * len(texts)
                return (rows / numpy.linalg.norm(rows, axis=1, keepdims=True)).astype(numpy.float32)
            case "norm":
                return rows * numpy.float32(2)
            case "dtype":
                return rows.astype(numpy.float64)
            case "order":
                return rows[::-1].copy() if len(texts) > 1 else rows
        return rows

    async def generate(self, request: Request) -> AsyncIterator[Token]:
        tokens = [token async for token in FakeEngine.generate(self, request)]
        match self.fault:
            case "whole":
                tokens = [Token(text="".join(token.text for token in tokens)), tokens[-1]]
            case "no finish":
                tokens = tokens[:-1]
            case "endless":
                tokens = [*tokens[:-1], Token(finish="stop", prompt_tokens=1, completion_tokens=999)]
        for token in tokens:
            yield token

    async def rerank(self, query: str, documents: Sequence[str]) -> list[float]:
        scores = await super().rerank(query, documents)
        return [-score for score in scores] if self.fault == "upside down" else scores

    async def tokenize(self, texts: Sequence[str]) -> list[list[tuple[int, int]]]:
        spans = await super().tokenize(texts)
        if self.fault == "spans":
            return [[(start, end + 1) for start, end in each] for each in spans]
        return spans


class WrongBackend(FakeBackend):
    def __init__(self, fault: str) -> None:
        self.fault = fault
        self.calls = 0

    def identify(self, model: ModelSpec) -> str:
        if self.fault == "identity":
            return f"fake:{uuid.uuid4()}"
        if self.fault == "named":
            return f"fake:{model.name}{model.options}"
        if self.fault == "blind":
            return "fake:same"
        if self.fault == "silent":
            try:
                return super().identify(model)
            except ModelError as error:
                raise ModelError(model.name, error.args[1]) from None
        return super().identify(model)

    @asynccontextmanager
    async def open(self, model: ModelSpec) -> AsyncIterator[FakeEngine]:
        self.calls += 1
        if self.fault == "once" and self.calls > 1:
            raise ModelError(model.name, "cannot be opened again")
        FakeBackend.identify(self, model)
        engine = Wrong(model.name, FakeOptions())
        engine.fault = self.fault
        yield engine


CAUGHT: list[tuple[str, type, Callable[[Any], None]]] = [
    ("batch", EmbedderContract, EmbedderContract.test_a_row_does_not_depend_on_its_batch),
    ("norm", EmbedderContract, EmbedderContract.test_vectors_are_float32_rows_of_length_one),
    ("dtype", EmbedderContract, EmbedderContract.test_vectors_are_float32_rows_of_length_one),
    ("order", EmbedderContract, EmbedderContract.test_a_row_does_not_depend_on_its_batch),
    ("whole", GeneratorContract, GeneratorContract.test_a_stream_comes_in_pieces_and_ends_with_its_counts),
    ("no finish", GeneratorContract, GeneratorContract.test_a_stream_comes_in_pieces_and_ends_with_its_counts),
    ("endless", GeneratorContract, GeneratorContract.test_max_tokens_is_kept),
    ("upside down", RerankerContract, RerankerContract.test_the_relevant_document_scores_higher),
    ("spans", EmbedderContract, EmbedderContract.test_token_spans_lie_in_the_text_and_increase),
    ("identity", EmbedderContract, EmbedderContract.test_identity_is_stable),
    ("named", EmbedderContract, EmbedderContract.test_identity_does_not_depend_on_the_name),
    ("blind", EmbedderContract, EmbedderContract.test_identity_changes_with_options_that_change_results),
    ("silent", EmbedderContract, EmbedderContract.test_a_missing_model_says_how_to_get_it),
    ("once", EmbedderContract, EmbedderContract.test_opens_and_closes_twice),
]


@pytest.mark.parametrize(("fault", "suite", "check"), CAUGHT, ids=[fault for fault, _, _ in CAUGHT])
def test_a_wrong_engine_fails_its_suite(fault: str, suite: type, check: Callable[[Any], None]) -> None:
    def case(broken: str) -> Any:
        body = {"make_backend": lambda self: WrongBackend(broken)}
        return type("Case", (Fake, suite), body)()

    check(case("nothing"))
    with pytest.raises((AssertionError, ModelError)):
        check(case(fault))
