"""The export job: what is copied, and what is made smaller."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy
import onnx
import onnxruntime  # type: ignore[import-untyped]  # ships neither stubs nor py.typed
import pytest
from onnx import TensorProto, helper, numpy_helper
from sage_onnx import export_job

Build = Callable[..., Path]


def linear(folder: Path) -> Path:
    """A model of one matrix, which is what is made smaller."""
    weights = numpy.random.default_rng(0).normal(size=(64, 64)).astype(numpy.float32)
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["y"])],
        "linear",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["rows", 64])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["rows", 64])],
        [numpy_helper.from_array(weights, "w")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    model.ir_version = 8
    folder.mkdir()
    onnx.save(model, str(folder / "model.onnx"))
    (folder / "tokenizer.json").write_text("{}")
    return folder


def answer(model: Path) -> numpy.ndarray:
    x = numpy.random.default_rng(1).normal(size=(3, 64)).astype(numpy.float32)
    session = onnxruntime.InferenceSession(str(model), providers=["CPUExecutionProvider"])
    return numpy.asarray(session.run(None, {"x": x})[0])


def test_an_onnx_source_is_copied_with_what_describes_it(tmp_path: Path, embedder: Build) -> None:
    source, target = embedder(tmp_path / "source"), tmp_path / "target"
    (source / "1_Pooling").mkdir()
    (source / "1_Pooling" / "config.json").write_text("{}")
    target.mkdir()
    export_job.main({"source": str(source), "target": str(target), "reference": "", "quantize": None})
    copied = {path.relative_to(target).as_posix() for path in target.rglob("*") if path.is_file()}
    assert copied == {"model.onnx", "tokenizer.json", "1_Pooling/config.json"}


def test_a_model_in_a_folder_of_its_own_is_copied_with_the_files_that_hold_its_weights(tmp_path: Path) -> None:
    source, target = tmp_path / "source", tmp_path / "target"
    (source / "onnx").mkdir(parents=True)
    for name in ("model.onnx", "model.onnx_data", "model_fp16.onnx"):
        (source / "onnx" / name).write_text(name)
    (source / "tokenizer.json").write_text("{}")
    export_job.main({"source": str(source), "target": str(target), "reference": "", "quantize": None})
    assert sorted(path.name for path in target.iterdir()) == ["model.onnx", "model.onnx_data", "tokenizer.json"]


def test_the_model_beside_the_configuration_wins_over_one_in_a_folder(tmp_path: Path) -> None:
    source, target = linear(tmp_path / "source"), tmp_path / "target"
    (source / "onnx").mkdir()
    (source / "onnx" / "model.onnx").write_text("other")
    export_job.main({"source": str(source), "target": str(target), "reference": "", "quantize": None})
    assert (target / "model.onnx").read_bytes() == (source / "model.onnx").read_bytes()


@pytest.mark.parametrize(("kind", "needs", "least"), [("int8", "onnx_ir", 0.999), ("int8-dynamic", "onnx", 0.98)])
def test_smaller_weights_keep_their_results_and_the_full_model_is_kept_aside(
    tmp_path: Path, kind: str, needs: str, least: float
) -> None:
    pytest.importorskip(needs)
    source, target, full = linear(tmp_path / "source"), tmp_path / "target", tmp_path / "full"
    export_job.main({"source": str(source), "target": str(target), "reference": str(full), "quantize": kind})
    assert (full / "model.onnx").read_bytes() == (source / "model.onnx").read_bytes()
    exact, rough = answer(full / "model.onnx"), answer(target / "model.onnx")
    cosine = (exact * rough).sum() / numpy.linalg.norm(exact) / numpy.linalg.norm(rough)
    assert least < cosine < 1
    assert (target / "model.onnx").stat().st_size < (source / "model.onnx").stat().st_size
    assert (target / "tokenizer.json").is_file()


def test_the_job_runs_by_itself_without_sage(tmp_path: Path, embedder: Build) -> None:
    """As in the isolated environment: nothing of SAGE is imported."""
    code = (
        "import runpy, sys; sys.modules['sage_core'] = None; sys.modules['sage_onnx'] = None;"
        f"runpy.run_path({export_job.__file__!r})['main'](dict(source={str(embedder(tmp_path / 'a'))!r},"
        f"target={str(tmp_path)!r}, reference='', quantize=None))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
    assert (tmp_path / "model.onnx").is_file()


def test_the_job_is_read_from_a_file(tmp_path: Path, embedder: Build) -> None:
    job = {"source": str(embedder(tmp_path / "a")), "target": str(tmp_path / "b"), "reference": "", "quantize": None}
    (tmp_path / "job.json").write_text(json.dumps(job))
    command = [sys.executable, str(export_job.__file__), str(tmp_path / "job.json")]
    assert subprocess.run(command, check=False).returncode == 0
    assert (tmp_path / "b" / "model.onnx").is_file()
