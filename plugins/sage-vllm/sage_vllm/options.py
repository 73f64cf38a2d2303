"""What ``[models.NAME]`` says about a vLLM engine, and the command line that it becomes."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec

from sage_core import Kind, ModelError, ModelSpec

Count = Annotated[int, msgspec.Meta(ge=0)]
Seconds = Annotated[float, msgspec.Meta(gt=0)]
Build = Literal["cpu", "cuda"]

#: What SAGE itself says on the command line.
_OURS = (
    "--host", "--port", "--uds", "--api-key", "--served-model-name", "--model", "--middleware", "--enable-sleep-mode",
    "--runner", "--max-model-len", "--max-num-seqs", "--max-num-batched-tokens", "--dtype", "--load-format",
)  # fmt: skip
#: Files up to this size are identified by their content, larger ones by size and time of change.
_SMALL = 1_000_000
#: Requests at a time where nothing else is said.
_SEQUENCES: dict[Build, int] = {"cpu": 32, "cuda": 256}
_SIZE = re.compile(r"(\d+) ?(MiB|GiB)?")


class Options(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The keys ``[models.NAME]`` may hold beside those of every model."""

    #: A server that runs already, which is adopted and never ended: ``http://host:8000/v1``.
    base_url: str = ""
    #: What that server calls the model, and its key.
    model: str = ""
    api_key: str = ""
    #: The program ``vllm``; empty means the environment that `sage vllm install` made.
    executable: str = ""
    #: Empty means cuda where the model needs a GPU, else cpu.
    build: Build | Literal[""] = ""
    #: ``generate``; or ``embed``, ``rerank`` or both, which vLLM's pooling runner serves.
    kinds: Annotated[tuple[Kind, ...], msgspec.Meta(min_length=1)] = ("generate",)
    dtype: str = "auto"
    #: ``dummy`` makes weights up: for tests of mechanics.
    load_format: str = "auto"
    #: Longest prompt and answer in tokens; 0 means what the model was made for.
    context: Count = 0
    #: Requests in the engine at a time; 0 means 32 on a CPU and 256 on a GPU.
    sequences: Count = 0
    #: Tokens of one step: a longer prompt is read in several.
    chunk: Annotated[int, msgspec.Meta(ge=1)] = 2_048
    #: Memory of the KV cache on a CPU, such as ``"2GiB"``, and the share of a GPU's memory that the engine may take.
    kv_cache: str = ""
    gpu_memory: Annotated[float, msgspec.Meta(gt=0, le=1)] = 0.9
    #: No compiled graphs: ready in half a minute, not in two, and slower. None: only on a CPU.
    eager: bool | None = None
    #: Cores of a CPU engine as vLLM's VLLM_CPU_OMP_THREADS_BIND says them: ``"0-1"``; empty leaves it to vLLM.
    cores: str = ""
    #: More of vLLM's own command line, and of its environment.
    arguments: tuple[str, ...] = ()
    environment: dict[str, str] = {}
    #: vLLM's sleep level for an engine that SAGE closes; 0 ends the process. None: 1 where the build can sleep.
    sleep: Literal[0, 1] | None = None
    #: Seconds that an engine may sleep before its process ends.
    asleep: Seconds = 3_600.0
    #: Seconds until it must be ready.
    start: Seconds = 900.0
    #: Padded tokens and rows of one request for embeddings.
    batch_tokens: Annotated[int, msgspec.Meta(ge=1)] = 16_384
    batch_rows: Annotated[int, msgspec.Meta(ge=1)] = 256
    #: Seconds between two looks at the figures of ``/metrics``; 0 never looks.
    figures: Annotated[float, msgspec.Meta(ge=0)] = 5.0
    price: Annotated[float, msgspec.Meta(ge=0)] = 1.0
    #: Seconds until the first byte of an answer, between two pieces of it, and of silence before it is asked.
    timeout: Seconds = 600.0
    stall: Seconds = 60.0
    health: Annotated[float, msgspec.Meta(ge=0)] = 10.0
    #: Fields added to the requests that SAGE itself writes.
    extra: dict[str, Any] = {}


def read_options(spec: ModelSpec) -> Options:
    """Check a model's options."""
    try:
        options = msgspec.convert(spec.options, Options)
    except msgspec.ValidationError as error:
        known = ", ".join(Options.__struct_fields__)
        problem = f"the options are wrong: {str(error).replace('`', chr(39))}"
        raise ModelError(spec.name, problem, f"the backend 'vllm' knows: {known}") from None
    if not set(options.kinds) <= {"embed", "rerank"} and options.kinds != ("generate",):
        problem = f"one vLLM engine cannot serve {' and '.join(options.kinds)}"
        raise ModelError(spec.name, problem, 'kinds = ["generate"], or any of "embed" and "rerank": two models')
    if options.kv_cache and not _SIZE.fullmatch(options.kv_cache):
        raise ModelError(spec.name, f"kv_cache = {options.kv_cache!r} is no size", 'write kv_cache = "2GiB"')
    taken = [word for word in options.arguments if word.partition("=")[0].replace("_", "-") in _OURS]
    if taken:
        problem = f"arguments hold {taken[0]}, which SAGE says itself"
        raise ModelError(spec.name, problem, "options do that: context, sequences, chunk, dtype, load_format, kinds, …")
    return options


def build_of(spec: ModelSpec, options: Options) -> Build:
    """Which build of vLLM serves a model."""
    return options.build or ("cuda" if spec.needs.get("gpu") else "cpu")


def sequences_of(options: Options, build: Build) -> int:
    """Requests in the engine at a time."""
    return options.sequences or _SEQUENCES[build]


def sleeps(options: Options, build: Build) -> bool:
    """Whether an engine that is closed goes to sleep; vLLM's CPU build cannot."""
    return bool(options.sleep if options.sleep is not None else build == "cuda" and not options.executable)


def command_line(spec: ModelSpec, options: Options, build: Build) -> list[str]:
    """What follows ``vllm``, without host and port, which are known when it starts."""
    line = ["serve", weights_of(spec), "--served-model-name", spec.name, "--dtype", options.dtype]
    line += ["--load-format", options.load_format, "--max-num-seqs", str(sequences_of(options, build))]
    line += ["--max-num-batched-tokens", str(options.chunk)]
    if options.context:
        line += ["--max-model-len", str(options.context)]
    if options.kinds == ("generate",):
        # What arrives in one instant is ordered by SAGE; `priority` of a request is kept for what is preempted.
        line += ["--scheduling-policy", "priority"]
    else:
        line += ["--runner", "pooling"]
    if options.eager if options.eager is not None else build == "cpu":
        line += ["--enforce-eager"]
    if build == "cuda":
        line += ["--gpu-memory-utilization", str(options.gpu_memory)]
        gpus = int(spec.needs.get("gpu", 1))
        if gpus > 1 and not any(word.startswith(("--tensor-parallel-size", "-tp")) for word in options.arguments):
            line += ["--tensor-parallel-size", str(gpus)]
    if sleeps(options, build):
        line += ["--enable-sleep-mode"]
    # The gateway counts requests; a line for each would fill the log with nothing else.
    return [*line, "--disable-uvicorn-access-log", "--middleware", "sage_vllm_guard.Guard", *options.arguments]


def variables(spec: ModelSpec, options: Options, build: Build) -> dict[str, str]:
    """What the server's environment says beside the user's."""
    said = {"VLLM_NO_USAGE_STATS": "1", "DO_NOT_TRACK": "1"}
    if not spec.source.startswith("hf:"):
        # No run asks a model hub for anything unless a source says so.
        said |= {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1"}
    if build == "cpu":
        said["VLLM_CPU_KVCACHE_SPACE"] = str(_gibibytes(options.kv_cache or "2GiB"))
        if options.cores:
            said["VLLM_CPU_OMP_THREADS_BIND"] = options.cores
    if sleeps(options, build):
        # Opens /sleep and /wake_up, to those alone who have the key.
        said["VLLM_SERVER_DEV_MODE"] = "1"
    return {**said, **options.environment}


def weights_of(spec: ModelSpec) -> str:
    """A folder, or a name on the hub; raises `ModelError` where there is none."""
    source = spec.source
    if source.startswith("hf:"):
        return source.removeprefix("hf:")
    help = (
        f"source = a folder with config.json, or hf:ORG/NAME; or: sage models add {spec.name} --backend vllm --source …"
    )
    if not source:
        raise ModelError(spec.name, "it has no source", help)
    folder = Path(source).expanduser().absolute()
    if not (folder / "config.json").is_file():
        raise ModelError(spec.name, f"the source {folder} holds no config.json", help)
    return str(folder)


def identity(spec: ModelSpec, options: Options, build: Build) -> str:
    """Digest of the weights and of the settings that decide results."""
    weights = weights_of(spec)
    marks: list[str] = [weights]
    if not spec.source.startswith("hf:"):
        kept = ("*.json", "*.safetensors", "*.bin", "*.jinja", "*.model", "*.txt")
        marks = [_mark(path) for path in sorted({path for kind in kept for path in Path(weights).glob(kind)})]
    decides = [options.kinds, options.dtype, options.load_format, options.context, options.arguments, options.extra]
    # The leading number names this backend's way to ask: it changes when equal settings would be asked differently.
    content = msgspec.json.encode([1, build, marks, decides, options.environment], order="deterministic")
    return hashlib.sha256(content).hexdigest()[:32]


def _mark(path: Path) -> str:
    stat = path.stat()
    if stat.st_size <= _SMALL:
        return f"{path.name} {hashlib.sha256(path.read_bytes()).hexdigest()}"
    return f"{path.name} {stat.st_size} {stat.st_mtime_ns}"


def _gibibytes(text: str) -> int:
    """Whole GiB, at least one: what VLLM_CPU_KVCACHE_SPACE is counted in."""
    number, unit = _SIZE.fullmatch(text).groups()  # type: ignore[union-attr]  # held against it by `read_options`
    size = int(number) * {"MiB": 2**20, "GiB": 2**30, None: 1}[unit]
    return max(1, round(size / 2**30))
