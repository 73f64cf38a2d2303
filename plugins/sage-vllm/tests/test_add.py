"""Bringing weights: copied, unpacked, converted or fetched by vLLM's own environment, a stand-in of which is real."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from sage_vllm.add import add_model
from sage_vllm.backend import VllmBackend
from sage_vllm.environment import Made

from sage_core import ModelError


def files(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_folder_is_copied_and_weighed(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    (source / "config.json").write_text("{}")
    (source / "model.safetensors").write_bytes(b"0" * 2_000_000)
    facts = VllmBackend().add("chat", str(source), {}, tmp_path / "target")
    assert facts == {"megabytes": 2.0}
    assert files(tmp_path / "target") == ["config.json", "model.safetensors"]


def test_a_packaged_embedder_says_how_it_is_served(index: Path, tmp_path: Path) -> None:
    facts = add_model("vectors", "package:minilm", {}, tmp_path / "target")
    assert facts["settings"] == {"kinds": ["embed"], "dtype": "float32"}
    assert files(tmp_path / "target") == ["config.json", "modules.json"]
    # What it was unpacked to is gone.
    assert {path.name for path in tmp_path.iterdir()} == {"target"}


@pytest.mark.parametrize("packaged", [True, False])
def test_a_gguf_file_is_converted_by_the_environment_that_serves_it(made: Made, tmp_path: Path, packaged: bool) -> None:
    file = tmp_path / "weights.gguf"
    file.write_bytes(b"weights")
    add_model("chat", "package:smollm2" if packaged else str(file), {}, tmp_path / "target")
    assert files(tmp_path / "target") == ["config.json", "tokenizer.json"]
    # What reading the file takes has been installed there.
    assert list(Path(made.folder).glob("lib/python*/site-packages/gguf-*"))


def test_the_hub_is_asked_for_what_is_there_and_says_what_is_not(
    made: Made, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert add_model("chat", "hf:ORG/NAME", {}, tmp_path / "target") == {"megabytes": 0.0}
    with pytest.raises(ModelError, match=r"convert_job\.py fetch ORG/ELSE .*ended with status 1\n  help: its own mes"):
        add_model("chat", "hf:ORG/ELSE", {}, tmp_path / "other")
    said = capfd.readouterr()
    assert "ORG/ELSE: 404" in said.err
    # Standard output is for results.
    assert said.out == ""


@pytest.mark.parametrize(
    ("source", "options", "message"),
    [
        ("package:minilm", {"dtype": "float32"}, "the backend 'vllm' has no options for adding: dtype"),
        ("package:nothing", {}, "no package is known for 'nothing'\n  help: known: smollm2, minilm"),
        ("/nowhere/model.gguf", {}, "the source /nowhere/model.gguf is not a file"),
        ("/nowhere", {}, r"the source /nowhere holds no config\.json\n  help: name a folder as transformers saves it"),
    ],
)
def test_what_cannot_be_added_is_refused(tmp_path: Path, source: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ModelError, match=message):
        add_model("chat", source, options, tmp_path / "target")


def test_without_an_environment_nothing_is_converted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SAGE_HOME", str(tmp_path / "home"))
    file = tmp_path / "weights.gguf"
    file.write_bytes(b"weights")
    with pytest.raises(ModelError, match="which loads weights, is not installed\n  help: sage vllm install --cpu"):
        add_model("chat", str(file), {}, tmp_path / "target")
    assert json.dumps(files(tmp_path / "target")) == "[]"
