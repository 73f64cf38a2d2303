"""Measures a model when it is added: does a row depend on its batch, and how far is it from full precision."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import numpy

from sage_onnx.engine import embed_texts, score_pairs
from sage_onnx.session import Session
from sage_onnx.tokens import BERT_UNCASED
from sage_onnx.weights import Weights

if TYPE_CHECKING:
    from sage_onnx.session import Floats

#: Differences up to this are rounding; a scale shared by the batch costs a hundred times more.
_ROUNDING = 1e-5


class Facts(msgspec.Struct, frozen=True, kw_only=True):
    """What was measured; the cosines are to full precision and None where nothing was quantised."""

    batch_invariant: bool
    #: Largest difference between a text alone and the same text in a mixed batch.
    batch_difference: float
    cosine_mean: float | None = None
    cosine_min: float | None = None

    def numbers(self) -> dict[str, float]:
        """The measured values that there are."""
        found = {
            "batch_difference": self.batch_difference,
            "cosine_mean": self.cosine_mean,
            "cosine_min": self.cosine_min,
        }
        return {key: float(f"{value:.4g}") for key, value in found.items() if value is not None}


def measure(name: str, weights: Weights, reference: Path | None) -> Facts:
    """Run sample texts alone and together, and through `reference` (the model before quantisation)."""
    texts = samples()
    run = _runner(name, weights)
    alone = numpy.concatenate([run([text]) for text in texts])
    difference = float(abs(run(texts) - alone).max())
    facts = Facts(batch_invariant=difference <= _ROUNDING, batch_difference=difference)
    if reference is None:
        return facts
    exact = _runner(name, msgspec.structs.replace(weights, model=reference))(texts)
    # Scores of a cross-encoder are one direction: their cosine says whether they order alike.
    close = (alone * exact).sum(axis=1) if exact.shape[1] > 1 else _cosine(alone, exact)
    return msgspec.structs.replace(facts, cosine_mean=float(close.mean()), cosine_min=float(close.min()))


def samples(count: int = 64) -> list[str]:
    """Texts of 2 to 150 words drawn from the packaged vocabulary, the same every time."""
    chance = random.Random(0)
    words = [word for word in BERT_UNCASED.read_text(encoding="utf-8").split("\n") if word.isalpha() and word.isascii()]
    return [" ".join(chance.choices(words, k=chance.choice((2, 5, 12, 30, 70, 150)))) for _ in range(count)]


def _runner(name: str, weights: Weights) -> Callable[[list[str]], Floats]:
    settings = msgspec.structs.replace(weights.settings, batch_invariant=True)
    session = Session(name, msgspec.structs.replace(weights, settings=settings), threads=0)
    if settings.kind == "rerank":
        query = "what is written here about time and place"
        return lambda texts: numpy.asarray(score_pairs(session, query, texts), dtype=numpy.float32)[:, None]
    return lambda texts: embed_texts(session, settings.pooling, texts)


def _cosine(one: Floats, other: Floats) -> Floats:
    if numpy.array_equal(one, other):
        # Also where every score is 0, which has no direction.
        return numpy.ones(1, dtype=numpy.float32)
    lengths = numpy.linalg.norm(one) * numpy.linalg.norm(other)
    return numpy.asarray([(one * other).sum() / lengths if lengths else 0], dtype=numpy.float32)
