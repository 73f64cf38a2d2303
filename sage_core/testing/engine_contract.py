"""Contract suites for backends and their engines: subclass one, set ``make_backend`` and ``spec``."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from typing import Any, TypeVar

import msgspec
import pytest

from sage_core.common.contracts import Backend, Embeds, Engine, Generates, Reranks, Tokenizes
from sage_core.common.errors import ModelError
from sage_core.common.records import Capacity, Kind, ModelSpec, Request, Token

T = TypeVar("T")

#: Texts of every length and script that an engine meets, an empty one among them.
TEXTS = (
    "a",
    "The quick brown fox jumps over the lazy dog.",
    "",
    "Ein Satz mit Umlauten: äöüß, und ein Wort: Donaudampfschifffahrt.",
    "日本語の文章もあります。",
    "tabs\tand\nnew lines\r\n and   spaces",
    "emoji 👩‍🚀 and a combining e\u0301",
    "word " * 120,
)


class BackendContract:
    """What every backend keeps, whatever its engines can do.

    Attributes:
        spec: a model that can be opened.
        changed_options: option values of which any one changes results, so the identity must change with it.
        missing: a model whose weights are not there; None where a backend has no such thing.
        seconds: patience for one call.
    """

    spec: ModelSpec
    changed_options: dict[str, object] = {}
    missing: ModelSpec | None = None
    seconds: float = 60.0
    #: The request kind that the suite is about; set by the suite.
    kind: Kind | None = None

    def make_backend(self) -> Backend:
        """A fresh backend; it takes no arguments when SAGE makes it."""
        raise NotImplementedError("return a backend from make_backend")

    def within(self, use: Callable[[Any], Awaitable[T]]) -> T:
        """Open an engine, use it, and close it."""

        async def run() -> T:
            async with self.make_backend().open(self.spec) as engine:
                return await use(engine)

        return asyncio.run(asyncio.wait_for(run(), self.seconds))

    def test_opens_and_closes_twice(self) -> None:
        backend = self.make_backend()

        async def twice() -> list[tuple[Kind, ...]]:
            seen = []
            for _ in range(2):
                async with backend.open(self.spec) as engine:
                    seen.append(engine.kinds)
            return seen

        first, second = asyncio.run(asyncio.wait_for(twice(), self.seconds))
        assert first == second

    def test_says_what_it_can_do_and_hold(self) -> None:
        async def look(engine: Engine) -> tuple[tuple[Kind, ...], Capacity, dict[str, bool]]:
            able = {
                "embed": isinstance(engine, Embeds),
                "generate": isinstance(engine, Generates),
                "rerank": isinstance(engine, Reranks),
                "tokenize": isinstance(engine, Tokenizes),
            }
            return engine.kinds, engine.capacity, able

        kinds, capacity, able = self.within(look)
        assert kinds, "an engine serves at least one kind"
        assert self.kind is None or self.kind in kinds, f"{self.kind} is missing from kinds {kinds}"
        assert all(able[kind] for kind in kinds), f"kinds {kinds} without the methods for them: {able}"
        for field in ("sequences", "batch_tokens", "batch_rows", "context"):
            assert getattr(capacity, field) >= 1, f"capacity.{field} is below 1"

    def test_identity_is_stable(self) -> None:
        first, second = (self.make_backend().identify(self.spec) for _ in range(2))
        assert first, "an identity is not empty"
        assert first == second, "two backends identify the same model differently"

    def test_identity_does_not_depend_on_the_name(self) -> None:
        if not self.spec.source:
            pytest.skip("the model has no source: its backend finds it by the name")
        renamed = msgspec.structs.replace(self.spec, name="another-name")
        assert self.make_backend().identify(renamed) == self.make_backend().identify(self.spec)

    def test_identity_changes_with_options_that_change_results(self) -> None:
        if not self.changed_options:
            pytest.skip("changed_options is empty: no option changes results")
        known = self.make_backend().identify(self.spec)
        for option, value in self.changed_options.items():
            other = msgspec.structs.replace(self.spec, options={**self.spec.options, option: value})
            assert self.make_backend().identify(other) != known, f"option {option} changes results, not the identity"

    def test_a_missing_model_says_how_to_get_it(self) -> None:
        if self.missing is None:
            pytest.skip("missing is None: every model of this backend is there")
        missing = self.missing
        with pytest.raises(ModelError) as caught:
            self.make_backend().identify(missing)
        assert caught.value.args[2], "the error has no help: what must a user do to get the model?"

        async def open_it() -> None:
            async with self.make_backend().open(missing):
                pass

        with pytest.raises(ModelError):
            asyncio.run(asyncio.wait_for(open_it(), self.seconds))


class TokenizerContract(BackendContract):
    """What every engine that tokenizes keeps; the embedder's and generator's suites include it where it applies."""

    def test_token_spans_lie_in_the_text_and_increase(self) -> None:
        async def tokenize(engine: Engine) -> list[list[tuple[int, int]]] | None:
            return await engine.tokenize(TEXTS) if isinstance(engine, Tokenizes) else None

        spans = self.within(tokenize)
        if spans is None:
            pytest.skip("the engine does not tokenize")
        assert len(spans) == len(TEXTS), "one list of spans for each text"
        for text, tokens in zip(TEXTS, spans, strict=True):
            assert bool(tokens) == bool(text.strip()), f"{text!r} has {len(tokens)} tokens"
            before = (0, 0)
            for start, end in tokens:
                # Several tokens may share a character: the bytes of one that the vocabulary does not hold.
                assert 0 <= start <= end <= len(text), f"span {(start, end)} outside {text!r}"
                assert (start, end) >= before, f"spans of {text!r} go back: {before} then {(start, end)}"
                before = (start, end)


class EmbedderContract(TokenizerContract):
    """What every embedding engine keeps: shape, norm, and that a row does not depend on its batch.

    Attributes:
        tolerance: largest difference of one component between a text alone and in a batch of mixed lengths.
    """

    kind: Kind | None = "embed"
    tolerance: float = 1e-5

    def embed(self, *batches: tuple[str, ...]) -> list[Any]:
        """Embed batches one after the other on one engine."""

        async def use(engine: Embeds) -> list[Any]:
            return [await engine.embed(batch) for batch in batches]

        return self.within(use)

    def test_vectors_are_float32_rows_of_length_one(self) -> None:
        async def use(engine: Any) -> tuple[Any, int]:
            return await engine.embed(TEXTS), engine.dimension

        vectors, dimension = self.within(use)
        assert dimension > 0
        assert vectors.shape == (len(TEXTS), dimension)
        assert vectors.dtype.name == "float32"
        lengths = (vectors.astype("float64") ** 2).sum(axis=1) ** 0.5
        assert abs(lengths - 1).max() < 1e-3, f"rows are not L2-normalised: {lengths}"

    def test_a_row_does_not_depend_on_its_batch(self) -> None:
        together, *alone = self.embed(TEXTS, *((text,) for text in TEXTS))
        for text, row, single in zip(TEXTS, together, alone, strict=True):
            difference = abs(row - single[0]).max()
            assert difference <= self.tolerance, f"{text[:40]!r} differs by {difference} in a batch of mixed lengths"

    def test_the_order_of_a_batch_does_not_matter(self) -> None:
        forwards, backwards = self.embed(TEXTS, TEXTS[::-1])
        assert abs(forwards - backwards[::-1]).max() <= self.tolerance

    def test_different_texts_have_different_vectors(self) -> None:
        (vectors,) = self.embed(("a cat sleeps", "quarterly revenue grew by nine percent"))
        assert abs(vectors[0] - vectors[1]).max() > 100 * self.tolerance

    def test_the_same_text_has_the_same_vector_in_every_process_of_life(self) -> None:
        assert abs(self.embed(TEXTS)[0] - self.embed(TEXTS)[0]).max() <= self.tolerance

    def test_a_text_beyond_the_context_is_cut(self) -> None:
        async def use(engine: Any) -> Any:
            return await engine.embed(["word " * (engine.capacity.context + 50), "short"])

        vectors = self.within(use)
        assert vectors.shape[0] == 2
        assert abs((vectors.astype("float64") ** 2).sum(axis=1) - 1).max() < 1e-3

    def test_no_texts_are_no_rows(self) -> None:
        assert self.embed(())[0].shape[0] == 0


class GeneratorContract(TokenizerContract):
    """What every generating engine keeps: real streams, counted, bounded, and closed when nobody reads."""

    kind: Kind | None = "generate"
    prompt: str = "Write the numbers from one to twenty as words, separated by spaces."

    def request(self, **fields: Any) -> Request:
        """A chat request of one message."""
        messages = ({"role": "user", "content": self.prompt},)
        return Request(id="contract", kind="generate", model=self.spec.name, messages=messages, **fields)

    def stream(self, **fields: Any) -> list[Token]:
        """Everything a request yields."""

        async def use(engine: Generates) -> list[Token]:
            return [token async for token in engine.generate(self.request(**fields))]

        return self.within(use)

    def test_a_stream_comes_in_pieces_and_ends_with_its_counts(self) -> None:
        tokens = self.stream(max_tokens=12)
        assert len([token for token in tokens if token.text]) > 1, "the answer came in one piece"
        *others, last = tokens
        assert last.finish, "the last token has no finish"
        assert not any(token.finish for token in others), "a token before the last has a finish"
        assert last.prompt_tokens > 0
        assert 0 < last.completion_tokens <= 12

    def test_max_tokens_is_kept(self) -> None:
        last = self.stream(max_tokens=3)[-1]
        assert last.completion_tokens <= 3
        assert last.finish == "length"

    def test_greedy_answers_repeat(self) -> None:
        first, second = ("".join(token.text for token in self.stream(max_tokens=8, seed=1)) for _ in range(2))
        assert first == second

    def test_a_stop_text_does_not_appear(self) -> None:
        answer = "".join(token.text for token in self.stream(max_tokens=16))
        stop = answer[len(answer) // 2 :][:3]
        stopped = "".join(token.text for token in self.stream(max_tokens=16, stop=(stop,)))
        assert stop not in stopped, f"the answer goes past its stop text {stop!r}: {stopped!r}"

    def test_closing_the_stream_frees_the_engine(self) -> None:
        async def use(engine: Generates) -> list[Token]:
            stream = engine.generate(self.request(max_tokens=2_000))
            assert isinstance(stream, AsyncGenerator), "closing a stream needs aclose: write generate as a generator"
            async with aclosing(stream):
                async for token in stream:
                    if token.text:
                        break
            return [token async for token in engine.generate(self.request(max_tokens=2))]

        assert self.within(use)[-1].finish


class RerankerContract(TokenizerContract):
    """What every reranking engine keeps: a score for each document, larger for the one that answers."""

    kind: Kind | None = "rerank"
    tolerance: float = 1e-4
    query: str = "What colour is the sky?"
    relevant: str = "The sky is blue: the colour of the sky comes from scattered light."
    irrelevant: str = "Bread is baked from flour, water and salt."

    def rerank(self, *batches: tuple[str, ...]) -> list[list[float]]:
        """Score batches of documents on one engine."""

        async def use(engine: Reranks) -> list[list[float]]:
            return [await engine.rerank(self.query, batch) for batch in batches]

        return self.within(use)

    def test_the_relevant_document_scores_higher(self) -> None:
        first, second = self.rerank((self.relevant, self.irrelevant))[0]
        assert first > second

    def test_scores_come_in_the_order_of_the_documents(self) -> None:
        forwards, backwards = self.rerank((self.relevant, self.irrelevant), (self.irrelevant, self.relevant))
        assert forwards == pytest.approx(backwards[::-1], abs=self.tolerance)

    def test_a_score_does_not_depend_on_the_other_documents(self) -> None:
        documents = (self.relevant, "", self.irrelevant, "word " * 200)
        together, *alone = self.rerank(documents, *((document,) for document in documents))
        assert together == pytest.approx([scores[0] for scores in alone], abs=self.tolerance)
