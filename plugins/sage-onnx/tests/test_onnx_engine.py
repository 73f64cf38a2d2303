"""Pooling and scoring: arithmetic on small arrays, and stopping between batches."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path

import numpy
import pytest
from sage_onnx.engine import embed_texts, pool, score_pairs
from sage_onnx.session import Session
from sage_onnx.weights import find_weights

from sage_core import ModelError, ModelSpec

Build = Callable[..., Path]

TOKENS = numpy.array([[[3, 0], [0, 4], [9, 9]], [[0, 2], [0, 6], [0, 1]]], numpy.float32)
MASK = numpy.array([[1, 1, 0], [1, 1, 1]])


def session(folder: Path, threads: int = 1) -> Session:
    return Session("tiny", find_weights(ModelSpec(name="tiny", backend="onnx", source=str(folder))), threads)


def test_the_mean_leaves_padding_out() -> None:
    assert pool(TOKENS, MASK, "mean") == pytest.approx(numpy.array([[0.6, 0.8], [0, 1]]))


def test_cls_is_the_first_token() -> None:
    assert pool(TOKENS, MASK, "cls") == pytest.approx(numpy.array([[1, 0], [0, 1]]))


def test_pooled_output_is_only_normalised_and_a_zero_stays_one() -> None:
    assert pool(numpy.array([[3, 4], [0, 0]], numpy.float32), MASK, "mean").tolist() == [
        pytest.approx([0.6, 0.8]),
        [0.0, 0.0],
    ]


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


def test_a_file_that_is_no_model_is_named(tmp_path: Path, embedder: Build) -> None:
    (embedder(tmp_path) / "model.onnx").write_bytes(b"not a graph")
    with pytest.raises(ModelError, match=r"model\.onnx cannot be loaded.*\n  help: is the file complete\?"):
        session(tmp_path)
