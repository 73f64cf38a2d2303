"""A session: what it feeds the runtime, batch by batch, and what it refuses."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper
from sage_onnx.session import CALL_TOKENS, Session, pack
from sage_onnx.tokens import bert_uncased
from sage_onnx.weights import find_weights

from sage_core import ModelError, ModelSpec

Build = Callable[..., Path]


def session(folder: Path, **options: object) -> Session:
    return Session("tiny", find_weights(ModelSpec(name="tiny", backend="onnx", source=str(folder), options=options)), 1)


def test_batches_keep_the_budget_and_lose_nothing() -> None:
    lengths = [5, 100, 3, 40, 40, 7, 2_000]
    batches = list(pack(lengths, 120))
    assert sorted(place for batch in batches for place in batch) == list(range(len(lengths)))
    assert all(len(batch) * max(lengths[place] for place in batch) <= 120 or len(batch) == 1 for batch in batches)
    assert [len(batch) for batch in pack(lengths, 0)] == [1] * len(lengths)
    assert list(pack([], 120)) == []


def cost(lengths: list[int]) -> int:
    return CALL_TOKENS + max(lengths) * len(lengths)


def cheapest(lengths: list[int], budget: int) -> int:
    """The least cost of any cut of sorted lengths, by trying every one."""
    if not lengths:
        return 0
    sizes = [size for size in range(1, len(lengths) + 1) if size == 1 or max(lengths[:size]) * size <= budget]
    return min(cost(lengths[:size]) + cheapest(lengths[size:], budget) for size in sizes)


@given(st.lists(st.integers(1, 60), max_size=9), st.integers(0, 300))
def test_every_place_is_in_one_batch_and_no_cut_costs_less(lengths: list[int], budget: int) -> None:
    batches = list(pack(lengths, budget))
    order = [place for batch in batches for place in batch]
    assert order == sorted(range(len(lengths)), key=lambda place: (-lengths[place], place))
    for batch in batches:
        assert len(batch) == 1 or len(batch) * max(lengths[place] for place in batch) <= budget
    found = sum(cost([lengths[place] for place in batch]) for batch in batches)
    assert found == cheapest(sorted(lengths, reverse=True), budget)


def test_a_text_is_not_padded_by_more_than_a_call_costs() -> None:
    assert list(pack([100, 60, 10, 9, 8], 256)) == [[0], [1], [2, 3, 4]]


def test_places_outputs_and_masks_belong_together(tmp_path: Path, embedder: Build) -> None:
    texts = ["sky", "a longer text of some words", "", "sky"]
    seen = {}
    for places, output, mask in session(embedder(tmp_path)).run(texts):
        assert output.shape[:2] == mask.shape
        seen.update({place: mask[row].sum() for row, place in enumerate(places)})
    # [CLS] and [SEP] stand around every text.
    assert seen == {0: 3, 1: 8, 2: 2, 3: 3}


def test_nothing_is_no_batch(tmp_path: Path, embedder: Build) -> None:
    assert list(session(embedder(tmp_path)).run([])) == []
    assert session(tmp_path).spans([]) == []


def test_texts_are_cut_at_the_longest_input_and_spans_are_not(tmp_path: Path, embedder: Build) -> None:
    short = session(embedder(tmp_path), max_tokens=5)
    ((_, output, _),) = short.run(["one two three four five six"])
    assert output.shape[1] == 5
    assert short.spans(["one two three four five six", "é 東"]) == [
        [(0, 3), (4, 7), (8, 13), (14, 18), (19, 23), (24, 27)],
        [(0, 1), (2, 3)],
    ]


def test_a_model_that_depends_on_its_batch_is_run_row_by_row(tmp_path: Path, embedder: Build) -> None:
    batches = [places for places, _, _ in session(embedder(tmp_path, dynamic=True)).run(["a", "b c", "d"])]
    assert batches == [[1], [0], [2]]


def test_a_text_without_tokens_is_read_as_padding_whatever_it_is_batched_with(tmp_path: Path, embedder: Build) -> None:
    described = json.loads(bert_uncased().to_str()) | {"post_processor": None}
    (embedder(tmp_path) / "tokenizer.json").write_text(json.dumps(described))
    model = session(tmp_path)
    ((_, alone, mask),) = model.run([""])
    assert mask.tolist() == [[1]]
    ((places, together, _),) = model.run(["", "blue sky"])
    assert numpy.array_equal(together[places.index(0), :1], alone[0])
    assert model.spans([""]) == [[]]


def test_the_width_is_the_graphs(tmp_path: Path, embedder: Build, cross_encoder: Build) -> None:
    assert session(embedder(tmp_path / "a")).width == 4
    assert session(cross_encoder(tmp_path / "b", classes=2)).width == 2


def test_a_file_that_is_no_model_is_named(tmp_path: Path, embedder: Build) -> None:
    (embedder(tmp_path) / "model.onnx").write_bytes(b"not a graph")
    with pytest.raises(ModelError, match=r"model\.onnx cannot be loaded.*\n  help: is the file complete\?"):
        session(tmp_path)


def test_a_model_that_wants_more_than_texts_give_is_refused(tmp_path: Path, embedder: Build) -> None:
    graph = onnx.load(str(embedder(tmp_path) / "model.onnx"))
    graph.graph.input.append(helper.make_tensor_value_info("pixels", TensorProto.FLOAT, ["batch"]))
    graph.graph.node.append(helper.make_node("Identity", ["pixels"], ["same"]))
    graph.graph.output.append(helper.make_tensor_value_info("same", TensorProto.FLOAT, ["batch"]))
    onnx.save(graph, str(tmp_path / "model.onnx"))
    with pytest.raises(ModelError, match=r"model\.onnx wants inputs that texts do not give: pixels"):
        session(tmp_path)


def test_inputs_that_the_model_cannot_take_name_their_length_and_the_way_out(tmp_path: Path, embedder: Build) -> None:
    graph = onnx.load(str(embedder(tmp_path) / "model.onnx"))
    table = graph.graph.initializer[0]
    small = onnx.numpy_helper.from_array(onnx.numpy_helper.to_array(table)[:200], table.name)
    table.CopyFrom(small)
    onnx.save(graph, str(tmp_path / "model.onnx"))
    with pytest.raises(
        ModelError,
        match=r"model 'tiny': it failed on inputs of 4 tokens: .*\n  help: .*max_tokens = N in \[models\.tiny\]",
    ):
        list(session(tmp_path).run(["blue sky"]))
