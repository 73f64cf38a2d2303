"""The embedder on the packaged weights: shape, norm, meaning, and independence of the batch."""

from __future__ import annotations

import asyncio
import random
import time
from pathlib import Path

import numpy
import pytest
from sage_onnx.backend import OnnxBackend

from sage_core import Embeds, ModelError, ModelSpec, Reranks

MINILM = ModelSpec(name="minilm", backend="onnx")


@pytest.fixture(autouse=True)
def _home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SAGE_HOME", str(tmp_path / "home"))


def mixed_texts(count: int) -> list[str]:
    """Texts of 1 to 300 words, some of them cut by the model."""
    chance = random.Random(7)
    words = Path(__file__).read_text(encoding="utf-8").split()
    return [" ".join(chance.choices(words, k=chance.choice((1, 3, 8, 20, 60, 300)))) for _ in range(count)]


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
            started = time.perf_counter()
            together = await engine.embed(texts)
            seconds = time.perf_counter() - started
            backwards = (await engine.embed(texts[::-1]))[::-1]
        worst = float(max(abs(alone - together).max(), abs(alone - backwards).max()))
        print(
            f"{len(texts)} texts of mixed length in one call: {len(texts) / seconds:.0f} texts/s; "
            f"largest difference {worst}"
        )
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


def test_missing_weights_say_how_to_get_them() -> None:
    with pytest.raises(ModelError, match="sage models add other --source"):
        OnnxBackend().identify(ModelSpec(name="other", backend="onnx"))
