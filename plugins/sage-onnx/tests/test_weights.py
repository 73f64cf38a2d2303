"""Finding and identifying models without loading them: every dead end says the way out."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from sage_onnx.weights import Settings, find_weights, quantises_activations, read_options

from sage_core import ModelError, ModelSpec

Build = Callable[..., Path]


def spec(source: object, **options: object) -> ModelSpec:
    return ModelSpec(name="mine", backend="onnx", source=str(source), options=options)


def identify(model: ModelSpec) -> str:
    return find_weights(model).identity


def test_an_unknown_name_lists_the_known_ones() -> None:
    with pytest.raises(ModelError, match=r"sage models add mine --source FOLDER.*minilm"):
        identify(spec(""))
    with pytest.raises(ModelError, match=r"no package is known for 'bert'\s+help: known: minilm"):
        identify(spec("package:bert"))


def test_an_incomplete_folder_says_what_is_missing(tmp_path: Path, embedder: Build) -> None:
    with pytest.raises(ModelError, match=r"neither model\.onnx nor onnx/model\.onnx\s+help: export it once"):
        identify(spec(tmp_path))
    embedder(tmp_path)
    (tmp_path / "tokenizer.json").unlink()
    with pytest.raises(ModelError, match=r"holds no tokenizer\.json"):
        identify(spec(tmp_path))


@pytest.mark.parametrize("options", [{"thread": 1}, {"threads": -1}, {"max_tokens": 1}, {"pooling": "max"}])
def test_wrong_options_are_refused(tmp_path: Path, options: dict[str, object]) -> None:
    with pytest.raises(ModelError, match="the options are wrong"):
        identify(ModelSpec(name="mine", backend="onnx", source=str(tmp_path), options=options))


def test_an_empty_model_file_is_named(tmp_path: Path, embedder: Build) -> None:
    (embedder(tmp_path) / "model.onnx").write_bytes(b"")
    with pytest.raises(ModelError, match=r"model\.onnx is empty\n  help: copy it again"):
        identify(spec(tmp_path))


def test_a_source_that_is_no_folder_is_named(tmp_path: Path) -> None:
    (tmp_path / "model.onnx").write_text("x")
    for source in (tmp_path / "nowhere", tmp_path / "model.onnx"):
        with pytest.raises(ModelError, match=rf"the source {source} is not a folder\n  help: name one that holds"):
            identify(spec(source))


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        (
            {"threads": -1},
            r"Expected `int` >= 0 - at `\$\.threads`\n  help: the backend 'onnx' knows: threads, max_tokens,",
        ),
        ({"max_tokens": 2}, r"Expected `int` >= 3 - at `\$\.max_tokens`"),
        ({"thread": 1}, r"unknown field `thread`"),
    ],
)
def test_a_wrong_option_is_named_with_its_limit(options: dict[str, object], problem: str) -> None:
    with pytest.raises(ModelError, match=problem):
        read_options(spec("", **options))


def test_identity_follows_files_and_settings_but_not_threads(tmp_path: Path, embedder: Build) -> None:
    folder = embedder(tmp_path)
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
        identify(spec(tmp_path))


def test_a_changed_or_added_file_is_another_model(tmp_path: Path, embedder: Build) -> None:
    seen = {identify(spec(embedder(tmp_path)))}
    with (tmp_path / "model.onnx").open("ab") as file:
        file.write(b"\0")
    seen.add(identify(spec(tmp_path)))
    (tmp_path / "model.onnx_data").write_bytes(b"1")
    seen.add(identify(spec(tmp_path)))
    (tmp_path / "tokenizer.json").write_text("{}")
    seen.add(identify(spec(tmp_path)))
    assert len(seen) == 4


def test_a_folder_has_the_same_identity_wherever_it_lies(tmp_path: Path, embedder: Build) -> None:
    first = embedder(tmp_path / "a")
    (first / "sage-model.toml").write_text('[sha256]\n"model.onnx" = "d"\n')
    before = identify(spec(first))
    assert identify(spec(first.rename(tmp_path / "b"))) == before


def test_the_settings_file_wins_and_options_win_over_it(tmp_path: Path, embedder: Build) -> None:
    (embedder(tmp_path) / "config.json").write_text('{"architectures": ["BertForSequenceClassification"]}')
    (tmp_path / "sage-model.toml").write_text('pooling = "cls"\nmax_tokens = 64\nbatch_invariant = false')
    assert find_weights(spec(tmp_path)).settings == Settings(pooling="cls", max_tokens=64, batch_invariant=False)
    overridden = find_weights(spec(tmp_path, pooling="mean", max_tokens=9)).settings
    assert overridden == Settings(pooling="mean", max_tokens=9, batch_invariant=False)


def test_settings_that_no_text_fits_are_named(tmp_path: Path, embedder: Build) -> None:
    (embedder(tmp_path) / "sage-model.toml").write_text("max_tokens = 2")
    with pytest.raises(ModelError, match=r"sage-model\.toml cannot be used: Expected `int` >= 3 - at `\$\.max_tokens`"):
        identify(spec(tmp_path))


@pytest.mark.parametrize(
    ("file", "content", "settings"),
    [
        ("config.json", {"architectures": ["XLMRobertaForSequenceClassification"]}, Settings(kind="rerank")),
        ("config.json", {"architectures": [], "max_position_embeddings": 514}, Settings(max_tokens=512)),
        ("config.json", {"max_position_embeddings": 128}, Settings(max_tokens=128)),
        ("config.json", {"max_position_embeddings": -1}, Settings()),
        ("config.json", ["no table"], Settings()),
        ("sentence_bert_config.json", {"max_seq_length": 384}, Settings(max_tokens=384)),
        ("sentence_bert_config.json", {"max_seq_length": None}, Settings()),
        ("1_Pooling/config.json", {"pooling_mode_mean_sqrt_len_tokens": True}, Settings(pooling="mean")),
        ("1_Pooling/config.json", {"pooling_mode_cls_token": True}, Settings(pooling="cls")),
    ],
)
def test_settings_are_read_from_what_other_tools_leave(
    tmp_path: Path, embedder: Build, file: str, content: object, settings: Settings
) -> None:
    (embedder(tmp_path) / file).parent.mkdir(exist_ok=True)
    (tmp_path / file).write_text(json.dumps(content))
    assert find_weights(spec(tmp_path)).settings == settings


def test_a_pooling_that_is_not_known_is_refused_unless_one_is_named(tmp_path: Path, embedder: Build) -> None:
    (embedder(tmp_path) / "1_Pooling").mkdir()
    described = {"pooling_mode_lasttoken": True, "pooling_mode_mean_tokens": False, "include_prompt": True}
    (tmp_path / "1_Pooling" / "config.json").write_text(json.dumps(described))
    with pytest.raises(
        ModelError, match=r'asks for pooling by lasttoken.*\n  help: .*pooling = "mean" or "cls" in \[mod'
    ):
        identify(spec(tmp_path))
    assert find_weights(spec(tmp_path, pooling="cls")).settings.pooling == "cls"


def test_what_is_not_json_is_named(tmp_path: Path, embedder: Build) -> None:
    (embedder(tmp_path) / "config.json").write_text("{")
    with pytest.raises(ModelError, match=r"config\.json is not JSON: "):
        identify(spec(tmp_path))


def test_a_graph_that_scales_activations_at_run_time_is_told(tmp_path: Path, embedder: Build) -> None:
    assert quantises_activations(embedder(tmp_path / "a", dynamic=True) / "model.onnx")
    assert not quantises_activations(embedder(tmp_path / "b") / "model.onnx")


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
    assert done.stdout.strip() == identify(spec(repository / "snapshots" / "abc123"))


def test_a_hub_model_that_cannot_be_fetched_says_so(tmp_path: Path) -> None:
    pytest.importorskip("huggingface_hub")
    done = from_hub(tmp_path, "hf:org/name")
    assert done.returncode == 1
    assert "hf:org/name cannot be fetched" in done.stderr
    assert "sage models add mine --source hf:org/name" in done.stderr
