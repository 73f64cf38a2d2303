"""Measuring a model: dependence on the batch, and the cosine to full precision."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest
from sage_onnx.measure import Facts, measure, samples
from sage_onnx.weights import Weights, find_weights

from sage_core import ModelSpec

Build = Callable[..., Path]


def weights(folder: Path) -> Weights:
    return find_weights(ModelSpec(name="mine", backend="onnx", source=str(folder)))


def test_quality_is_measured_against_the_reference(tmp_path: Path, embedder: Build) -> None:
    rough = weights(embedder(tmp_path / "rough", dynamic=True))
    facts = measure("mine", rough, embedder(tmp_path / "exact") / "model.onnx")
    assert facts.cosine_min is not None
    assert 0.9 < facts.cosine_min < 0.999_999
    same = measure("mine", msgspec.structs.replace(rough, model=tmp_path / "exact" / "model.onnx"), None)
    assert same.batch_invariant
    assert same.cosine_min is None


def test_dependence_on_the_batch_is_measured_whatever_the_settings_say(tmp_path: Path, embedder: Build) -> None:
    rough = weights(embedder(tmp_path, dynamic=True))
    assert not rough.settings.batch_invariant
    facts = measure("mine", rough, None)
    assert not facts.batch_invariant
    assert facts.batch_difference > 1e-3


@pytest.mark.parametrize("classes", [1, 2])
def test_a_cross_encoder_is_compared_by_the_direction_of_all_its_scores(
    tmp_path: Path, cross_encoder: Build, classes: int
) -> None:
    model = weights(cross_encoder(tmp_path, classes))
    # None of the samples holds its word, so every score is 0.
    facts = measure("mine", model, model.model)
    assert facts == Facts(batch_invariant=True, batch_difference=0, cosine_mean=1, cosine_min=1)


def test_only_what_was_measured_is_a_number_of_four_digits() -> None:
    assert Facts(batch_invariant=True, batch_difference=1.23456e-7).numbers() == {"batch_difference": 1.235e-7}
    assert Facts(batch_invariant=True, batch_difference=0, cosine_mean=0.999949, cosine_min=0).numbers() == {
        "batch_difference": 0,
        "cosine_mean": 0.9999,
        "cosine_min": 0,
    }


def test_samples_are_the_same_every_time_and_of_many_lengths() -> None:
    assert samples() == samples()
    assert samples(3) == samples()[:3]
    lengths = {len(text.split()) for text in samples()}
    assert lengths == {2, 5, 12, 30, 70, 150}
    assert all(text.isascii() for text in samples())
