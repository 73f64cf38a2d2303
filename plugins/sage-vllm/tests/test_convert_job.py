"""The job that runs in vLLM's environment: what it asks transformers for, and what it must not let be saved."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest
from sage_vllm import convert_job
from sage_vllm.environment import Made


def job(made: Made, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run it as `sage models add` does."""
    line = [str(made.python), "-I", convert_job.__file__, *arguments]
    return subprocess.run(line, capture_output=True, text=True, check=False)


def test_a_gguf_file_becomes_bfloat16_without_what_its_quantisation_left_behind(made: Made, tmp_path: Path) -> None:
    file = tmp_path / "weights.gguf"
    file.write_bytes(b"weights")
    target = tmp_path / "target"
    target.mkdir()
    done = job(made, "convert", str(file), str(target))
    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads((target / "config.json").read_text()) == {"read": "float32", "written": "bfloat16", "left": []}
    assert (target / "tokenizer.json").is_file()


@pytest.mark.parametrize(("name", "status"), [("ORG/NAME", 0), ("ORG/ELSE", 1)])
def test_a_model_of_the_hub_is_copied_whole_or_not(made: Made, tmp_path: Path, name: str, status: int) -> None:
    assert job(made, "fetch", name, str(tmp_path)).returncode == status
    assert (tmp_path / "config.json").is_file() == (status == 0)
