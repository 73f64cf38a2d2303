"""What ``sage models add`` does for this backend: export in an isolated environment, measure, and describe."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import msgspec

from sage_core import ModelError, ModelSpec, find_paths
from sage_onnx import export_job
from sage_onnx.measure import measure
from sage_onnx.weights import SETTINGS_FILE, find_weights

#: What the environment needs to make weights smaller, and what more to trace a PyTorch model.
_QUANTISE = ("onnx>=1.17", "onnxruntime>=1.22", "onnx-ir>=0.1")
# Pinned, so that one source exports to one file, and so that pip takes a CPU build of this version where there is one.
_EXPORT = (*_QUANTISE, "torch==2.13.0", "optimum[onnxruntime]==2.1.0", "optimum-onnx==0.1.0", "accelerate>=1")


class AddOptions(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What ``sage models add`` may be told."""

    quantize: Literal["int8", "int8-dynamic"] | None = None
    #: uv's ``--torch-backend``: cpu, cu128, auto, …; None installs what the package index serves.
    torch_backend: str | None = None


def add_model(name: str, source: str, options: Mapping[str, object], target: Path) -> Mapping[str, object]:
    """Fill `target` with a model that the engine can run, and return what was measured on it."""
    started = time.monotonic()
    try:
        wanted = msgspec.convert(dict(options), AddOptions)
    except msgspec.ValidationError as error:
        raise ModelError(name, f"it cannot be added this way: {error}", "--quantize int8 or int8-dynamic") from None
    ready = _holds_onnx(name, source)
    target.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as scratch:
        job = {
            "source": source.removeprefix("hf:")
            if source.startswith("hf:")
            else str(Path(source).expanduser().absolute()),
            "target": str(target),
            "reference": str(Path(scratch) / "full"),
            "quantize": wanted.quantize,
        }
        if ready and not wanted.quantize:
            export_job.main(job)
        else:
            python = prepare(name, _QUANTISE if ready else _EXPORT, wanted.torch_backend)
            description = Path(scratch) / "job.json"
            description.write_text(json.dumps(job), encoding="utf-8")
            _call(name, [str(python), str(export_job.__file__), str(description)])
        facts = _describe(name, source, wanted, target, Path(scratch) / "full")
    return {**facts, "seconds": round(time.monotonic() - started, 1)}


def _describe(name: str, source: str, wanted: AddOptions, target: Path, full: Path) -> dict[str, object]:
    weights = find_weights(ModelSpec(name=name, backend="onnx", source=str(target)))
    reference = full / "model.onnx" if wanted.quantize else None
    facts = measure(name, weights, reference)
    size = sum(path.stat().st_size for path in target.rglob("*") if path.is_file())
    settings = msgspec.structs.replace(weights.settings, batch_invariant=facts.batch_invariant)
    lines = [f"{key} = {json.dumps(value)}" for key, value in msgspec.structs.asdict(settings).items()]
    lines += ["", "[made]", f"source = {json.dumps(source)}", f"quantize = {json.dumps(wanted.quantize or 'none')}"]
    lines += [f"{key} = {json.dumps(value)}" for key, value in facts.numbers().items()]
    lines += ["", "[sha256]"]
    for path in sorted(target.glob("*.onnx*")):
        lines.append(f"{json.dumps(path.name)} = {json.dumps(_sha256(path))}")
    (target / SETTINGS_FILE).write_text("\n".join(lines) + "\n", encoding="utf-8")
    return {
        "kind": settings.kind,
        "batch_invariant": settings.batch_invariant,
        **facts.numbers(),
        "megabytes": round(size / 1e6, 1),
    }


def prepare(name: str, requirements: tuple[str, ...], torch_backend: str | None) -> Path:
    """Make or reuse the isolated environment for these requirements and return its Python."""
    key = hashlib.sha256(repr((requirements, torch_backend, sys.version_info[:2])).encode()).hexdigest()[:12]
    folder = find_paths(Path.cwd()).data / "environments" / f"onnx-{key}"
    python = folder / "bin" / "python"
    # Written last: an environment without it was left half made.
    mark = folder / "ready"
    if mark.is_file() and python.exists():
        return python
    uv = _uv()
    if torch_backend and not uv:
        raise ModelError(name, "--torch-backend needs uv, which is not installed", "pip install uv")
    shutil.rmtree(folder, ignore_errors=True)
    folder.parent.mkdir(parents=True, exist_ok=True)
    if uv:
        _call(name, [uv, "venv", "--quiet", "--seed", "--python", sys.executable, str(folder)])
    else:
        _call(name, [sys.executable, "-m", "venv", str(folder)])
    if uv and torch_backend:
        _call(name, [uv, "pip", "install", "--python", str(python), "--torch-backend", torch_backend, *requirements])
    else:
        # pip rather than uv: it reads pip's own configuration, where an index with the wanted PyTorch build may stand.
        _call(name, [str(python), "-m", "pip", "install", "--quiet", *requirements])
    mark.touch()
    return python


def _holds_onnx(name: str, source: str) -> bool:
    """Whether the source needs no export; raises when it is no model at all."""
    if source.startswith("hf:"):
        return False
    folder = Path(source).expanduser()
    if (folder / "model.onnx").is_file() or (folder / "onnx" / "model.onnx").is_file():
        return True
    if (folder / "config.json").is_file() and any(folder.glob("*.safetensors")):
        return False
    raise ModelError(
        name,
        f"the source {source} holds neither model.onnx nor config.json with *.safetensors",
        "name a folder with one of them, or hf:ORG/NAME",
    )


def _call(name: str, command: list[str]) -> None:
    # Standard output is for results: what tools say goes to descriptor 2.
    status = subprocess.run(command, stdout=2, check=False).returncode
    if status:
        raise ModelError(name, f"`{' '.join(command)}` ended with status {status}", "its own message is above")


def _uv() -> str | None:
    beside = Path(sys.executable).with_name("uv")
    return str(beside) if beside.is_file() else shutil.which("uv")


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
