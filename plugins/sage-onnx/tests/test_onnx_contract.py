"""The contract suites on the packaged weights, on a cross-encoder and on a model that must be run row by row."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from sage_onnx.backend import OnnxBackend

from sage_core import ModelSpec
from sage_core.testing.engine_contract import BackendContract, EmbedderContract, RerankerContract

Build = Callable[..., Path]


class OnnxCase(BackendContract):
    __test__ = False

    missing: ModelSpec | None = ModelSpec(name="missing", backend="onnx", source="no/such/folder")

    def make_backend(self) -> OnnxBackend:
        return OnnxBackend()


class TestMiniLM(OnnxCase, EmbedderContract):
    __test__ = True
    spec = ModelSpec(name="minilm", backend="onnx", source="package:minilm")
    changed_options = {"max_tokens": 64, "pooling": "cls"}


class TestMiniLMReranks(OnnxCase, RerankerContract):
    __test__ = True
    spec = ModelSpec(name="minilm", backend="onnx", source="package:minilm")


class TestRowByRow(OnnxCase, EmbedderContract):
    __test__ = True
    """A graph with a scale per batch, which keeps the contract only because the engine runs it row by row."""

    @pytest.fixture(autouse=True)
    def _model(self, tmp_path: Path, embedder: Build) -> None:
        self.spec = ModelSpec(name="dynamic", backend="onnx", source=str(embedder(tmp_path, dynamic=True)))


class TestCrossEncoder(OnnxCase, RerankerContract):
    __test__ = True

    @pytest.fixture(autouse=True)
    def _model(self, tmp_path: Path, cross_encoder: Build) -> None:
        self.spec = ModelSpec(name="cross", backend="onnx", source=str(cross_encoder(tmp_path)))


class TestTwoClasses(OnnxCase, RerankerContract):
    __test__ = True

    @pytest.fixture(autouse=True)
    def _model(self, tmp_path: Path, cross_encoder: Build) -> None:
        self.spec = ModelSpec(name="cross", backend="onnx", source=str(cross_encoder(tmp_path, classes=2)))
