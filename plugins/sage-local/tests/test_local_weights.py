"""Finding and adding GGUF files: every dead end says the way out, and nothing is loaded to identify a model."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from sage_local.backend import LocalBackend

from sage_core import ModelError, ModelSpec

HEAD = b"GGUF\x03\x00\x00\x00"


def spec(source: str = "", name: str = "mine", **options: object) -> ModelSpec:
    return ModelSpec(name=name, backend="local", source=source, options=options)


def test_an_unknown_name_lists_the_known_ones() -> None:
    with pytest.raises(ModelError, match=r"sage models add mine --backend local --source FILE\.gguf.*smollm2"):
        LocalBackend().identify(spec())


def test_a_wrong_file_is_named(tmp_path: Path) -> None:
    text = tmp_path / "notes.gguf"
    text.write_text("hello")
    with pytest.raises(ModelError, match=r"notes\.gguf is not a GGUF file"):
        LocalBackend().identify(spec(str(text)))
    with pytest.raises(ModelError, match=r"missing\.gguf is not a file"):
        LocalBackend().identify(spec(str(tmp_path / "missing.gguf")))


def test_a_folder_must_hold_one_file(tmp_path: Path) -> None:
    (tmp_path / "a.gguf").write_bytes(HEAD)
    one = LocalBackend().identify(spec(str(tmp_path)))
    assert one == LocalBackend().identify(spec(str(tmp_path / "a.gguf")))
    (tmp_path / "b.gguf").write_bytes(HEAD)
    with pytest.raises(ModelError, match=r"found: a\.gguf, b\.gguf"):
        LocalBackend().identify(spec(str(tmp_path)))


def test_identity_follows_file_and_context_but_not_threads(tmp_path: Path) -> None:
    file = tmp_path / "a.gguf"
    file.write_bytes(HEAD)
    identify = LocalBackend().identify
    first = identify(spec(str(file)))
    assert identify(spec(str(file), threads=1, parallel=4)) == first
    assert identify(spec(str(file), context=512)) != first
    file.write_bytes(HEAD + b"more")
    assert identify(spec(str(file))) != first


@pytest.mark.parametrize("options", [{"thread": 1}, {"threads": -1}, {"parallel": 0}, {"context": "long"}])
def test_wrong_options_are_refused(tmp_path: Path, options: dict[str, object]) -> None:
    with pytest.raises(ModelError, match="the options are wrong"):
        LocalBackend().identify(ModelSpec(name="mine", backend="local", source=str(tmp_path), options=options))


def test_an_added_file_is_copied_and_checked(tmp_path: Path) -> None:
    (tmp_path / "a.gguf").write_bytes(HEAD)
    target = tmp_path / "models" / "mine"
    assert LocalBackend().add("mine", str(tmp_path / "a.gguf"), {}, target)["file"] == "a.gguf"
    assert LocalBackend().identify(spec(str(target)))
    assert (target / "a.gguf").read_bytes() == HEAD
    (tmp_path / "a.gguf").write_bytes(b"text")
    with pytest.raises(ModelError, match="is not a GGUF file"):
        LocalBackend().add("mine", str(tmp_path / "a.gguf"), {}, tmp_path / "other")


def test_adding_what_cannot_be_added_says_why(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"no package is known for 'other'\s+help: known: smollm2"):
        LocalBackend().add("mine", "package:other", {}, tmp_path)
    with pytest.raises(ModelError, match="no options for adding: quantize"):
        LocalBackend().add("mine", "x.gguf", {"quantize": "int8"}, tmp_path)
    with pytest.raises(ModelError, match=r"hf:ORG/NAME/FILE\.gguf"):
        LocalBackend().add("mine", "hf:org/name", {}, tmp_path)


def test_identify_imports_no_llama(tmp_path: Path) -> None:
    (tmp_path / "a.gguf").write_bytes(HEAD)
    code = (
        "import sys; from sage_core import ModelSpec; import sage_local; from sage_local.backend import LocalBackend;"
        f"LocalBackend().identify(ModelSpec(name='m', backend='local', source={str(tmp_path)!r}));"
        "sys.exit('xllamacpp' in sys.modules or 'numpy' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False, env=dict(os.environ)).returncode == 0
