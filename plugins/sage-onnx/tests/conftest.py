"""Tiny ONNX models, built on the spot: real graphs for the real runtime. The fixtures are the functions that build."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from sage_onnx.tokens import bert_uncased

_WORDS = 30_522
_OPSETS = [helper.make_opsetid("", 17)]


def _save(
    folder: Path, nodes: list[onnx.NodeProto], weights: Mapping[str, object], output: onnx.ValueInfoProto
) -> Path:
    inputs = [
        helper.make_tensor_value_info(name, TensorProto.INT64, ["batch", "sequence"])
        for name in ("input_ids", "attention_mask")
    ]
    constants = [numpy_helper.from_array(numpy.asarray(value), name) for name, value in weights.items()]
    model = helper.make_model(helper.make_graph(nodes, "tiny", inputs, [output], constants), opset_imports=_OPSETS)
    model.ir_version = 8
    onnx.checker.check_model(model)
    folder.mkdir(parents=True, exist_ok=True)
    onnx.save(model, str(folder / "model.onnx"))
    bert_uncased().save(str(folder / "tokenizer.json"))
    return folder


def build_cross_encoder(folder: Path, classes: int = 1) -> Path:
    """Scores a pair by how many of its tokens are "sky" (and, with two classes, against the rest)."""
    table = numpy.zeros((_WORDS, classes), dtype=numpy.float32)
    table[bert_uncased().token_to_id("sky"), -1] = 1
    nodes = [
        helper.make_node("Gather", ["table", "input_ids"], ["rows"]),
        helper.make_node("Cast", ["attention_mask"], ["mask"], to=TensorProto.FLOAT),
        helper.make_node("Unsqueeze", ["mask", "last"], ["wide"]),
        helper.make_node("Mul", ["rows", "wide"], ["kept"]),
        helper.make_node("ReduceSum", ["kept", "middle"], ["logits"], keepdims=0),
    ]
    weights = {"table": table, "last": numpy.array([2]), "middle": numpy.array([1])}
    _save(folder, nodes, weights, helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", classes]))
    (folder / "config.json").write_text(json.dumps({"architectures": ["BertForSequenceClassification"]}))
    return folder


def build_embedder(folder: Path, *, dynamic: bool = False) -> Path:
    """Looks word vectors up; `dynamic` rounds them to 8 bits by a scale taken from the whole batch."""
    table = numpy.random.default_rng(0).normal(size=(_WORDS, 4)).astype(numpy.float32)
    table *= numpy.linspace(0.1, 10, _WORDS, dtype=numpy.float32)[:, None]
    nodes = [helper.make_node("Gather", ["table", "input_ids"], ["rows" if dynamic else "last_hidden_state"])]
    if dynamic:
        nodes += [
            helper.make_node("DynamicQuantizeLinear", ["rows"], ["small", "scale", "zero"]),
            helper.make_node("DequantizeLinear", ["small", "scale", "zero"], ["last_hidden_state"]),
        ]
    shape: list[str | int | None] = ["batch", "sequence", 4]
    output = helper.make_tensor_value_info("last_hidden_state", TensorProto.FLOAT, shape)
    return _save(folder, nodes, {"table": table}, output)


@pytest.fixture
def cross_encoder() -> Callable[..., Path]:
    return build_cross_encoder


@pytest.fixture
def embedder() -> Callable[..., Path]:
    return build_embedder
