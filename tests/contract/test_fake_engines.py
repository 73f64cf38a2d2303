"""The fake backend passes the contracts, and backends that break one promise each do not."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

import msgspec
import numpy
import pytest

from sage_core.common.contracts import Backend
from sage_core.common.errors import ModelError
from sage_core.common.records import Chunk, ModelSpec, Request, Token
from sage_core.testing.engine_contract import EmbedderContract, GeneratorContract, RerankerContract
from sage_core.testing.engines import FakeBackend, FakeEngine, FakeOptions
from sage_core.testing.forward_contract import ForwarderContract


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


class FakeForwarder(ForwarderContract):
    failing: ModelSpec | None = ModelSpec(name="fake", backend="fake", options={"fail_first": 1})

    def received(self, engine: Any) -> bytes | None:
        bodies: list[bytes] = engine.bodies
        return bodies[-1]

    def cancelled(self, engine: Any) -> int | None:
        return len(engine.cancels)


class TestFakeForwarder(Fake, FakeForwarder):
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

    async def forward(self, request: Request) -> AsyncIterator[Chunk]:
        match self.fault:
            case "blunt":
                request = msgspec.structs.replace(request, body=request.body.strip())
            case "late":
                yield Chunk(content_type="text/event-stream")
            case "raises":
                if b'"messages": 7' in request.body:
                    raise ModelError(self.model, "bad request")
        chunks = [chunk async for chunk in FakeEngine.forward(self, request)]
        match self.fault:
            case "uncounted":
                chunks = [msgspec.structs.replace(each, prompt_tokens=0, completion_tokens=0) for each in chunks]
            case "tokenless":
                chunks = [msgspec.structs.replace(each, tokens=0) for each in chunks]
            case "joined":
                chunks = [msgspec.structs.replace(chunks[-1], data=b"".join(each.data for each in chunks))]
            case "always 200":
                chunks = [msgspec.structs.replace(each, status=200) for each in chunks]
        for chunk in chunks:
            yield chunk

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
        super().__init__()
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
        options = FakeOptions(fail_first=model.options.get("fail_first", 0))
        engine = Wrong(model.name, options)
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
    ("blunt", FakeForwarder, FakeForwarder.test_the_body_passes_unchanged),
    ("late", FakeForwarder, FakeForwarder.test_a_failed_attempt_is_raised_before_the_first_chunk),
    ("raises", FakeForwarder, FakeForwarder.test_what_the_server_refuses_is_its_answer),
    ("always 200", FakeForwarder, FakeForwarder.test_what_the_server_refuses_is_its_answer),
    ("uncounted", FakeForwarder, FakeForwarder.test_a_whole_answer_is_json_with_its_status_and_its_counts),
    ("uncounted", FakeForwarder, FakeForwarder.test_a_stream_is_events_as_they_come_then_the_counts),
    ("tokenless", FakeForwarder, FakeForwarder.test_a_stream_is_events_as_they_come_then_the_counts),
    ("joined", FakeForwarder, FakeForwarder.test_a_stream_is_events_as_they_come_then_the_counts),
    ("upside down", RerankerContract, RerankerContract.test_the_relevant_document_scores_higher),
    ("spans", EmbedderContract, EmbedderContract.test_token_spans_lie_in_the_text_and_increase),
    ("identity", EmbedderContract, EmbedderContract.test_identity_is_stable),
    ("named", EmbedderContract, EmbedderContract.test_identity_does_not_depend_on_the_name),
    ("blind", EmbedderContract, EmbedderContract.test_identity_changes_with_options_that_change_results),
    ("silent", EmbedderContract, EmbedderContract.test_a_missing_model_says_how_to_get_it),
    ("once", EmbedderContract, EmbedderContract.test_opens_and_closes_twice),
]


@pytest.mark.parametrize(
    ("fault", "suite", "check"), CAUGHT, ids=[f"{fault}-{check.__name__[5:20]}" for fault, _, check in CAUGHT]
)
def test_a_wrong_engine_fails_its_suite(fault: str, suite: type, check: Callable[[Any], None]) -> None:
    def case(broken: str) -> Any:
        body = {"make_backend": lambda self: WrongBackend(broken)}
        return type("Case", (Fake, suite), body)()

    check(case("nothing"))
    with pytest.raises((AssertionError, ModelError, pytest.fail.Exception)):
        check(case(fault))
