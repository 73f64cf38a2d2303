"""Adding a GGUF file: forms of a source, and what is refused before anything is fetched."""

from __future__ import annotations

from pathlib import Path

import pytest
from sage_local.add import add_model
from sage_local.weights import Options, find_weights, read_options

from sage_core import ModelError, ModelSpec

HEAD = b"GGUF\x03\x00\x00\x00"


def spec(source: str, **options: object) -> ModelSpec:
    return ModelSpec(name="mine", backend="local", source=source, options=options)


def test_a_file_is_copied_and_found_again(tmp_path: Path) -> None:
    (tmp_path / "a.gguf").write_bytes(HEAD + b"x" * 100_000)
    assert add_model("mine", str(tmp_path / "a.gguf"), {}, tmp_path / "models") == {"file": "a.gguf", "megabytes": 0.1}
    assert find_weights(spec(str(tmp_path / "models"))).model == tmp_path / "models" / "a.gguf"


@pytest.mark.parametrize("source", ["hf:name", "hf:org/name", "hf:org/name/model.safetensors"])
def test_a_hub_source_must_name_a_file_whether_or_not_the_hubs_library_is_there(tmp_path: Path, source: str) -> None:
    with pytest.raises(ModelError, match=rf"{source} names no file\n  help: write hf:ORG/NAME/FILE\.gguf"):
        add_model("mine", source, {}, tmp_path)


def test_options_and_unknown_packages_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="no options for adding: quantize"):
        add_model("mine", "a.gguf", {"quantize": "int8"}, tmp_path)
    with pytest.raises(ModelError, match=r"no package is known for 'other'\s+help: known: smollm2"):
        add_model("mine", "package:other", {}, tmp_path)


def test_options_have_defaults_and_limits() -> None:
    assert read_options(spec("")) == Options(threads=0, context=4_096, parallel=2)
    assert read_options(spec("", context=64, parallel=1)).parallel == 1
    with pytest.raises(ModelError, match=r"context 64 or more, parallel 1 to 64"):
        read_options(spec("", context=63))
