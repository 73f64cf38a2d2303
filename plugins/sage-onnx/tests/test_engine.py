"""The engines: pooling and scoring on small arrays, meaning and independence of the batch on the packaged weights."""

from __future__ import annotations

import asyncio
import random
import threading
from collections.abc import Callable
from pathlib import Path

import numpy
import pytest
from sage_onnx.backend import OnnxBackend
from sage_onnx.engine import embed_texts, pool, score_pairs
from sage_onnx.session import Session
from sage_onnx.weights import find_weights

from sage_core import Embeds, Engine, ModelError, ModelSpec, Reranks

Build = Callable[..., Path]

MINILM = ModelSpec(name="minilm", backend="onnx")
TOKENS = numpy.array([[[3, 0], [0, 4], [9, 9]], [[0, 2], [0, 6], [0, 1]]], numpy.float32)
MASK = numpy.array([[1, 1, 0], [1, 1, 1]])


def session(folder: Path, threads: int = 1) -> Session:
    return Session("tiny", find_weights(ModelSpec(name="tiny", backend="onnx", source=str(folder))), threads)


def opened(source: Path, kind: str) -> Engine:
    """Open an engine on a folder that says what it is, and close it."""
    (source / "sage-model.toml").write_text(f'kind = "{kind}"')

    async def body() -> Engine:
        async with OnnxBackend().open(ModelSpec(name="mine", backend="onnx", source=str(source))) as engine:
            return engine

    return asyncio.run(body())


def mixed_texts(count: int) -> list[str]:
    """Texts of 1 to 300 words, some of them cut by the model."""
    chance = random.Random(7)
    words = Path(__file__).read_text(encoding="utf-8").split()
    return [" ".join(chance.choices(words, k=chance.choice((1, 3, 8, 20, 60, 300)))) for _ in range(count)]


def test_the_mean_leaves_padding_out() -> None:
    assert pool(TOKENS, MASK, "mean") == pytest.approx(numpy.array([[0.6, 0.8], [0, 1]]))


def test_a_row_of_the_mean_has_the_same_bits_however_much_padding_follows() -> None:
    row = numpy.random.default_rng(0).normal(size=(1, 7, 33)).astype(numpy.float32)
    wide = numpy.pad(row, ((0, 0), (0, 90), (0, 0)))
    mask = (numpy.arange(97)[None] < 7).astype(numpy.int64)
    assert numpy.array_equal(pool(row, mask[:, :7], "mean"), pool(wide, mask, "mean"))


def test_cls_is_the_first_token() -> None:
    assert pool(TOKENS, MASK, "cls") == pytest.approx(numpy.array([[1, 0], [0, 1]]))


def test_pooled_output_is_only_normalised_and_a_zero_stays_one() -> None:
    assert pool(numpy.array([[3, 4], [0, 0]], numpy.float32), MASK, "mean").tolist() == [
        pytest.approx([0.6, 0.8]),
        [0.0, 0.0],
    ]


def test_vectors_are_unit_float32_rows() -> None:
    async def body() -> None:
        async with OnnxBackend().open(MINILM) as engine:
            assert isinstance(engine, Embeds)
            vectors = await engine.embed(["a cat", "", "naïve 東京 🙂"])
            assert vectors.dtype == numpy.float32
            assert vectors.shape == (3, engine.dimension) == (3, 384)
            assert numpy.allclose(numpy.linalg.norm(vectors, axis=1), 1, atol=1e-5)
            assert (await engine.embed([])).shape == (0, 384)

    asyncio.run(body())


def test_a_vector_does_not_depend_on_its_batch() -> None:
    async def body() -> None:
        texts = mixed_texts(48)
        async with OnnxBackend().open(MINILM) as engine:
            assert isinstance(engine, Embeds)
            alone = numpy.concatenate([await engine.embed([text]) for text in texts])
            together = await engine.embed(texts)
            backwards = (await engine.embed(texts[::-1]))[::-1]
        worst = float(max(abs(alone - together).max(), abs(alone - backwards).max()))
        assert worst <= 1e-6

    asyncio.run(body())


def test_close_texts_score_higher() -> None:
    async def body() -> None:
        async with OnnxBackend().open(MINILM) as engine:
            assert isinstance(engine, Reranks)
            near, far = await engine.rerank(
                "How do I cook rice?", ["Boil rice in water for ten minutes.", "Stocks fell today."]
            )
        assert near > far + 0.3

    asyncio.run(body())


def test_nothing_to_rank_has_no_scores(tmp_path: Path, cross_encoder: Build) -> None:
    async def body() -> None:
        for model in (MINILM, ModelSpec(name="cross", backend="onnx", source=str(cross_encoder(tmp_path)))):
            async with OnnxBackend().open(model) as engine:
                assert isinstance(engine, Reranks)
                assert await engine.rerank("sky", []) == []
                assert len(await engine.rerank("", [""])) == 1

    asyncio.run(body())


def test_embedding_stops_between_batches_once_nobody_waits(tmp_path: Path, embedder: Build) -> None:
    gone = threading.Event()
    gone.set()
    texts = ["word " * 200, "word " * 150, "word " * 100]
    vectors = embed_texts(session(embedder(tmp_path)), "mean", texts, gone)
    assert [bool(row.any()) for row in vectors] == [True, False, False]


@pytest.mark.parametrize("classes", [1, 2])
def test_scores_stop_between_batches_too(tmp_path: Path, cross_encoder: Build, classes: int) -> None:
    model = session(cross_encoder(tmp_path, classes))
    documents = ["sky " * 200, "sky " * 3]
    assert score_pairs(model, "sky", documents) == [201.0, 4.0]
    gone = threading.Event()
    gone.set()
    assert score_pairs(model, "sky", documents, gone) == [201.0, 0.0]


def test_scores_keep_the_order_of_documents(tmp_path: Path, cross_encoder: Build) -> None:
    documents = ["none", "sky " * 40, "sky", "sky sky", "none"]
    assert score_pairs(session(cross_encoder(tmp_path)), "a", documents) == [0.0, 40.0, 1.0, 2.0, 0.0]


def test_a_cross_encoder_taken_for_an_embedder_is_refused_when_it_is_opened(
    tmp_path: Path, cross_encoder: Build
) -> None:
    with pytest.raises(ModelError, match=r'its output is no vector\n  help: a cross-encoder needs kind = "rerank" in'):
        opened(cross_encoder(tmp_path), "embed")


def test_an_embedder_taken_for_a_cross_encoder_is_refused_when_it_is_opened(tmp_path: Path, embedder: Build) -> None:
    with pytest.raises(ModelError, match=r'its output is no score\n  help: an embedder needs kind = "embed" in'):
        opened(embedder(tmp_path), "rerank")
