"""The backend: the contract suites on several models, and opening what cannot be opened."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from sage_onnx.backend import OnnxBackend
from sage_onnx.engine import OnnxEmbedder, OnnxReranker

from sage_core import ModelError, ModelSpec
from sage_core.testing.engine_contract import BackendContract, EmbedderContract, RerankerContract

Build = Callable[..., Path]


def spec(source: object, **options: object) -> ModelSpec:
    return ModelSpec(name="mine", backend="onnx", source=str(source), options=options)


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


def test_the_kind_of_engine_follows_the_model(tmp_path: Path, embedder: Build, cross_encoder: Build) -> None:
    async def opened(model: ModelSpec) -> type:
        async with OnnxBackend().open(model) as engine:
            return type(engine)

    assert asyncio.run(opened(spec(embedder(tmp_path / "a")))) is OnnxEmbedder
    assert asyncio.run(opened(spec(cross_encoder(tmp_path / "b")))) is OnnxReranker


def test_a_model_that_cannot_be_opened_leaves_no_thread(tmp_path: Path, embedder: Build) -> None:
    (embedder(tmp_path) / "model.onnx").write_bytes(b"not a graph")

    async def body() -> None:
        with pytest.raises(ModelError, match=r"model\.onnx cannot be loaded"):
            async with OnnxBackend().open(spec(tmp_path)):
                pass

    asyncio.run(body())
    assert [thread.name for thread in threading.enumerate() if thread.name.startswith("onnx-")] == []


def test_the_packaged_names_are_found_without_a_source() -> None:
    assert OnnxBackend.packaged == ("minilm",)
    named = OnnxBackend().identify(ModelSpec(name="minilm", backend="onnx"))
    assert named == OnnxBackend().identify(spec("package:minilm"))


def test_identify_imports_no_runtime() -> None:
    code = (
        "import sys; from sage_core import ModelSpec; import sage_onnx; from sage_onnx.backend import OnnxBackend;"
        "OnnxBackend().identify(ModelSpec(name='minilm', backend='onnx'));"
        "sys.exit('onnxruntime' in sys.modules or 'numpy' in sys.modules or 'tokenizers' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
