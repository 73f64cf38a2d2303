"""Adding a GGUF file: forms of a source, and what is refused before anything is fetched."""

from __future__ import annotations

from pathlib import Path

import pytest
from sage_local.add import add_model
from sage_local.weights import find_weights

from sage_core import ModelError, ModelSpec

HEAD = b"GGUF\x03\x00\x00\x00"


def spec(source: str = "", name: str = "mine", **options: object) -> ModelSpec:
    return ModelSpec(name=name, backend="local", source=source, options=options)


def test_a_file_is_copied_and_found_again(tmp_path: Path) -> None:
    (tmp_path / "a.gguf").write_bytes(HEAD + b"x" * 100_000)
    assert add_model("mine", str(tmp_path / "a.gguf"), {}, tmp_path / "models") == {"file": "a.gguf", "megabytes": 0.1}
    assert find_weights(spec(str(tmp_path / "models"))).model == tmp_path / "models" / "a.gguf"


def test_a_folder_with_one_file_is_a_source_too(tmp_path: Path) -> None:
    (tmp_path / "from").mkdir()
    (tmp_path / "from" / "größer.gguf").write_bytes(HEAD)
    assert add_model("mine", str(tmp_path / "from"), {}, tmp_path / "to")["file"] == "größer.gguf"
    assert (tmp_path / "to" / "größer.gguf").read_bytes() == HEAD


def test_a_file_is_held_to_the_same_checks_as_when_it_is_run(tmp_path: Path) -> None:
    (tmp_path / "a.gguf").write_bytes(b"text")
    with pytest.raises(ModelError, match=r"a\.gguf is not a GGUF file"):
        add_model("mine", str(tmp_path / "a.gguf"), {}, tmp_path / "models")
    with pytest.raises(ModelError, match=r"missing\.gguf is not a file"):
        add_model("mine", str(tmp_path / "missing.gguf"), {}, tmp_path / "models")
    assert list((tmp_path / "models").iterdir()) == []


@pytest.mark.parametrize("source", ["hf:name", "hf:org/name", "hf:org/name/model.safetensors"])
def test_a_hub_source_must_name_a_file_whether_or_not_the_hubs_library_is_there(tmp_path: Path, source: str) -> None:
    with pytest.raises(ModelError, match=rf"{source} names no file\n  help: write hf:ORG/NAME/FILE\.gguf"):
        add_model("mine", source, {}, tmp_path)


def test_options_and_unknown_packages_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="no options for adding: quantize"):
        add_model("mine", "a.gguf", {"quantize": "int8"}, tmp_path)
    with pytest.raises(ModelError, match=r"no package is known for 'other'\s+help: known: smollm2"):
        add_model("mine", "package:other", {}, tmp_path)
