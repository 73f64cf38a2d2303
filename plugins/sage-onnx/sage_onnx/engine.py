"""The engines: an embedder and a cross-encoder, each running its session on a thread of its own."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, TypeVar

import numpy

from sage_core import Capacity, Kind, ModelError
from sage_onnx.session import Session
from sage_onnx.weights import Settings

if TYPE_CHECKING:
    from sage_onnx.session import Floats, Integers

T = TypeVar("T")


class _Engine:
    """What both engines share: one thread for the model, so that its own threads never compete with one another."""

    def __init__(self, session: Session, settings: Settings, thread: ThreadPoolExecutor) -> None:
        self._session = session
        self._settings = settings
        self._thread = thread

    @property
    def capacity(self) -> Capacity:
        return Capacity(sequences=1, batch_tokens=1_024, batch_rows=256, context=self._settings.max_tokens)

    async def tokenize(self, texts: Sequence[str]) -> list[list[tuple[int, int]]]:
        # Not on the engine's thread: whoever cuts documents into chunks would wait for every embedding before it.
        return await asyncio.to_thread(self._session.spans, texts)

    async def _call(self, work: Callable[[threading.Event], T]) -> T:
        """Run `work` on the engine's thread; it sees the event set once the caller has gone."""
        gone = threading.Event()
        try:
            return await asyncio.get_running_loop().run_in_executor(self._thread, work, gone)
        finally:
            gone.set()


class OnnxEmbedder(_Engine):
    """Pools token vectors under the attention mask and normalises them; reranks by their cosine."""

    kinds: tuple[Kind, ...] = ("embed", "rerank", "tokenize")

    def __init__(self, name: str, session: Session, settings: Settings, thread: ThreadPoolExecutor) -> None:
        super().__init__(session, settings, thread)
        # A graph may leave its width open; one short text shows it.
        self.dimension = session.width or embed_texts(session, settings.pooling, ["a"]).shape[1]
        if self.dimension < 2:
            raise ModelError(
                name, "its output is no vector", 'a cross-encoder needs kind = "rerank" in sage-model.toml'
            )

    async def embed(self, texts: Sequence[str]) -> Floats:
        if not texts:
            return numpy.empty((0, self.dimension), dtype=numpy.float32)
        return await self._call(lambda gone: embed_texts(self._session, self._settings.pooling, texts, gone))

    async def rerank(self, query: str, documents: Sequence[str]) -> list[float]:
        vectors = await self.embed([query, *documents])
        scores: list[float] = (vectors[1:] @ vectors[0]).tolist()
        return scores


class OnnxReranker(_Engine):
    """A cross-encoder: reads query and document together and gives one score."""

    kinds: tuple[Kind, ...] = ("rerank", "tokenize")
    dimension = 0

    def __init__(self, name: str, session: Session, settings: Settings, thread: ThreadPoolExecutor) -> None:
        super().__init__(session, settings, thread)
        # A graph may leave its shape open; one short pair shows it.
        _, output, _ = next(session.run([("a", "b")]))
        if output.ndim != 2:
            raise ModelError(name, "its output is no score", 'an embedder needs kind = "embed" in sage-model.toml')

    async def rerank(self, query: str, documents: Sequence[str]) -> list[float]:
        if not documents:
            return []
        return await self._call(lambda gone: score_pairs(self._session, query, documents, gone))


def embed_texts(session: Session, pooling: str, texts: Sequence[str], gone: threading.Event | None = None) -> Floats:
    """One unit vector a text, in order; stops between batches once `gone` is set."""
    result: Floats | None = None
    for places, output, mask in session.run(texts):
        vectors = pool(output, mask, pooling)
        if result is None:
            result = numpy.zeros((len(texts), vectors.shape[1]), dtype=numpy.float32)
        result[places] = vectors
        if gone is not None and gone.is_set():
            break
    assert result is not None, "called without a text"
    return result


def score_pairs(
    session: Session, query: str, documents: Sequence[str], gone: threading.Event | None = None
) -> list[float]:
    """One score a document, in order; stops between batches once `gone` is set."""
    scores = numpy.zeros(len(documents), dtype=numpy.float32)
    for places, output, _ in session.run([(query, document) for document in documents]):
        # Two classes are (irrelevant, relevant): their difference orders like the probability.
        scores[places] = output[:, 0] if output.shape[1] == 1 else output[:, -1] - output[:, 0]
        if gone is not None and gone.is_set():
            break
    result: list[float] = scores.tolist()
    return result


def pool(output: Floats, mask: Integers, pooling: str) -> Floats:
    """Turn token vectors into one unit vector a row; padding has no weight. Pooled output is only normalised."""
    if output.ndim == 2:
        vectors = output
    elif pooling == "cls":
        vectors = output[:, 0]
    else:
        # One row after the other: a sum over the padded width would add its zeros in another order in another batch.
        vectors = numpy.stack([row[:length].mean(axis=0) for row, length in zip(output, mask.sum(axis=1), strict=True)])
    norms = numpy.linalg.norm(vectors, axis=1, keepdims=True)
    return numpy.asarray(vectors / numpy.maximum(norms, 1e-12), dtype=numpy.float32)
