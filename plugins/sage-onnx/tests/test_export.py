"""Adding models: exported or copied, measured, described; environments are made once."""

from __future__ import annotations

import tomllib
from collections.abc import Callable
from pathlib import Path

import pytest
from sage_onnx.backend import OnnxBackend
from sage_onnx.export import add_model, prepare
from sage_onnx.weights import find_weights

from sage_core import ModelError, ModelSpec

Build = Callable[..., Path]


@pytest.fixture(autouse=True)
def _home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SAGE_HOME", str(tmp_path / "home"))


def spec(source: object, **options: object) -> ModelSpec:
    return ModelSpec(name="mine", backend="onnx", source=str(source), options=options)


def test_an_embedder_is_copied_measured_and_described(tmp_path: Path, embedder: Build) -> None:
    source, target = embedder(tmp_path / "source"), tmp_path / "target"
    facts = OnnxBackend().add("mine", str(source), {}, target)
    assert facts["batch_invariant"] is True
    assert facts["batch_difference"] == 0
    assert 'kind = "embed"' in (target / "sage-model.toml").read_text()
    moved = target.rename(tmp_path / "moved")
    assert OnnxBackend().identify(spec(moved))


def test_what_is_written_beside_a_model_is_toml_with_where_it_came_from(tmp_path: Path, embedder: Build) -> None:
    source = embedder(tmp_path / 'so "ur" ce é')
    facts = add_model("mine", str(source), {}, tmp_path / "target")
    described = tomllib.loads((tmp_path / "target" / "sage-model.toml").read_text(encoding="utf-8"))
    assert described["made"] == {"source": str(source), "quantize": "none", "batch_difference": 0.0}
    assert list(described["sha256"]) == ["model.onnx"]
    assert (described["kind"], described["pooling"], described["max_tokens"]) == ("embed", "mean", 256)
    assert set(facts) == {"kind", "batch_invariant", "batch_difference", "megabytes", "seconds"}


def test_a_batch_dependent_model_is_measured_and_labelled(tmp_path: Path, embedder: Build) -> None:
    target = tmp_path / "target"
    facts = OnnxBackend().add("mine", str(embedder(tmp_path / "source", dynamic=True)), {}, target)
    assert facts["batch_invariant"] is False
    assert float(str(facts["batch_difference"])) > 1e-3
    assert not find_weights(spec(target)).settings.batch_invariant


def test_a_cross_encoder_is_known_by_its_configuration(tmp_path: Path, cross_encoder: Build) -> None:
    assert OnnxBackend().add("mine", str(cross_encoder(tmp_path / "a")), {}, tmp_path / "b")["kind"] == "rerank"
    assert find_weights(spec(tmp_path / "b")).settings.kind == "rerank"


@pytest.mark.parametrize(
    ("source", "options", "problem"),
    [
        ("nowhere", {}, r"holds neither model\.onnx nor config\.json"),
        ("nowhere", {"quantize": "int3"}, "cannot be added this way"),
        ("nowhere", {"speed": "fast"}, "cannot be added this way"),
    ],
)
def test_adding_what_cannot_be_added_says_why(
    tmp_path: Path, source: str, options: dict[str, object], problem: str
) -> None:
    with pytest.raises(ModelError, match=problem):
        OnnxBackend().add("mine", str(tmp_path / source), options, tmp_path / "target")


def test_a_source_that_is_no_model_is_refused_before_anything_is_installed(tmp_path: Path) -> None:
    with pytest.raises(
        ModelError, match=r"holds neither model\.onnx nor config\.json with \*\.safetensors\n  help: name"
    ):
        add_model("mine", str(tmp_path / "empty"), {}, tmp_path / "target")
    assert not (tmp_path / "target").exists()
    assert not (tmp_path / "home").exists()


def test_an_environment_is_made_once_and_a_failed_one_is_not_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    environments = tmp_path / "home" / "data" / "environments"
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    with pytest.raises(ModelError, match=r"ended with status \d+\n  help: its own message is above"):
        prepare("mine", (str(tmp_path / "no-such-package"),), None)
    (half,) = environments.iterdir()
    assert not (half / "ready").exists()
    (half / "ready").touch()
    assert prepare("mine", (str(tmp_path / "no-such-package"),), None) == half / "bin" / "python"
