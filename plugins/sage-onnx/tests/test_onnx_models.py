"""Finding, identifying and adding models: every dead end says the way out."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest
from sage_onnx.backend import OnnxBackend
from sage_onnx.measure import measure
from sage_onnx.session import pack
from sage_onnx.weights import find_weights

from sage_core import ModelError, ModelSpec

Build = Callable[..., Path]


def spec(source: object, **options: object) -> ModelSpec:
    return ModelSpec(name="mine", backend="onnx", source=str(source), options=options)


def test_an_unknown_name_lists_the_known_ones() -> None:
    with pytest.raises(ModelError, match=r"sage models add mine --source FOLDER.*minilm"):
        OnnxBackend().identify(spec(""))
    with pytest.raises(ModelError, match=r"no package is known for 'bert'\s+help: known: minilm"):
        OnnxBackend().identify(spec("package:bert"))


def test_an_incomplete_folder_says_what_is_missing(tmp_path: Path, embedder: Build) -> None:
    with pytest.raises(ModelError, match=r"neither model\.onnx nor onnx/model\.onnx\s+help: export it once"):
        OnnxBackend().identify(spec(tmp_path))
    embedder(tmp_path)
    (tmp_path / "tokenizer.json").unlink()
    with pytest.raises(ModelError, match=r"holds no tokenizer\.json"):
        OnnxBackend().identify(spec(tmp_path))


@pytest.mark.parametrize("options", [{"thread": 1}, {"threads": -1}, {"max_tokens": 1}, {"pooling": "max"}])
def test_wrong_options_are_refused(tmp_path: Path, options: dict[str, object]) -> None:
    with pytest.raises(ModelError, match="the options are wrong"):
        OnnxBackend().identify(ModelSpec(name="mine", backend="onnx", source=str(tmp_path), options=options))


def test_identity_follows_files_and_settings_but_not_threads(tmp_path: Path, embedder: Build) -> None:
    folder = embedder(tmp_path)
    identify = OnnxBackend().identify
    first = identify(spec(folder))
    assert identify(spec(folder, threads=1)) == first
    assert identify(spec(folder, max_tokens=9)) != first
    (folder / "1_Pooling").mkdir()
    (folder / "1_Pooling" / "config.json").write_text(json.dumps({"pooling_mode_cls_token": True}))
    assert identify(spec(folder)) != first
    assert find_weights(spec(folder)).settings.pooling == "cls"


def test_a_broken_settings_file_is_named(tmp_path: Path, embedder: Build) -> None:
    (embedder(tmp_path) / "sage-model.toml").write_text('kind = "speak"')
    with pytest.raises(ModelError, match=r"sage-model\.toml cannot be used.*\$\.kind"):
        OnnxBackend().identify(spec(tmp_path))


def test_an_embedder_is_copied_measured_and_described(tmp_path: Path, embedder: Build) -> None:
    source, target = embedder(tmp_path / "source"), tmp_path / "target"
    facts = OnnxBackend().add("mine", str(source), {}, target)
    assert facts["batch_invariant"] is True
    assert facts["batch_difference"] == 0
    assert 'kind = "embed"' in (target / "sage-model.toml").read_text()
    moved = target.rename(tmp_path / "moved")
    assert OnnxBackend().identify(spec(moved))


def test_a_batch_dependent_model_is_measured_and_labelled(tmp_path: Path, embedder: Build) -> None:
    target = tmp_path / "target"
    facts = OnnxBackend().add("mine", str(embedder(tmp_path / "source", dynamic=True)), {}, target)
    assert facts["batch_invariant"] is False
    assert float(str(facts["batch_difference"])) > 1e-3
    assert not find_weights(spec(target)).settings.batch_invariant


def test_a_cross_encoder_is_known_by_its_configuration(tmp_path: Path, cross_encoder: Build) -> None:
    assert OnnxBackend().add("mine", str(cross_encoder(tmp_path / "a")), {}, tmp_path / "b")["kind"] == "rerank"
    assert find_weights(spec(tmp_path / "b")).settings.kind == "rerank"


def test_quality_is_measured_against_the_reference(tmp_path: Path, embedder: Build) -> None:
    rough = find_weights(spec(embedder(tmp_path / "rough", dynamic=True)))
    facts = measure("mine", rough, embedder(tmp_path / "exact") / "model.onnx")
    assert facts.cosine_min is not None
    assert 0.9 < facts.cosine_min < 0.999_999
    same = measure("mine", msgspec.structs.replace(rough, model=tmp_path / "exact" / "model.onnx"), None)
    assert same.batch_invariant
    assert same.cosine_min is None


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


def test_batches_keep_the_budget_and_lose_nothing() -> None:
    lengths = [5, 100, 3, 40, 40, 7, 2_000]
    batches = list(pack(lengths, 120))
    assert sorted(place for batch in batches for place in batch) == list(range(len(lengths)))
    assert all(len(batch) * max(lengths[place] for place in batch) <= 120 or len(batch) == 1 for batch in batches)
    assert [len(batch) for batch in pack(lengths, 0)] == [1] * len(lengths)
    assert list(pack([], 120)) == []


def test_identify_imports_no_runtime() -> None:
    code = (
        "import sys; from sage_core import ModelSpec; import sage_onnx; from sage_onnx.backend import OnnxBackend;"
        "OnnxBackend().identify(ModelSpec(name='minilm', backend='onnx'));"
        "sys.exit('onnxruntime' in sys.modules or 'numpy' in sys.modules or 'tokenizers' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def from_hub(cache: Path, source: str) -> subprocess.CompletedProcess[str]:
    """Identify a model with an offline hub whose cache is `cache`; its settings are read at import."""
    code = (
        "from sage_core import ModelSpec; from sage_onnx.backend import OnnxBackend;"
        f"print(OnnxBackend().identify(ModelSpec(name='mine', backend='onnx', source={source!r})))"
    )
    environment = {**os.environ, "HF_HUB_CACHE": str(cache), "HF_HUB_OFFLINE": "1"}
    return subprocess.run([sys.executable, "-c", code], check=False, capture_output=True, text=True, env=environment)


def test_a_hub_model_is_found_in_the_hubs_cache(tmp_path: Path, embedder: Build) -> None:
    pytest.importorskip("huggingface_hub")
    repository = tmp_path / "models--org--name"
    embedder(repository / "snapshots" / "abc123")
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text("abc123")
    done = from_hub(tmp_path, "hf:org/name")
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == OnnxBackend().identify(spec(repository / "snapshots" / "abc123"))


def test_a_hub_model_that_cannot_be_fetched_says_so(tmp_path: Path) -> None:
    pytest.importorskip("huggingface_hub")
    done = from_hub(tmp_path, "hf:org/name")
    assert done.returncode == 1
    assert "hf:org/name cannot be fetched" in done.stderr
    assert "sage models add mine --source hf:org/name" in done.stderr
