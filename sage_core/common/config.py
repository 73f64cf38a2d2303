"""sage.toml as frozen records: unknown keys are refused by name, every value has a default."""

from __future__ import annotations

import os
import tomllib
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

import msgspec

from sage_core.common.errors import ConfigError, suggest

_Section = msgspec.Struct


class StoreConfig(_Section, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """``[store]``: where jobs are kept."""

    #: ``sqlite:///PATH``, from this file's folder, or ``postgresql://…``; empty means the project's `.sage/sage.db`.
    url: str = ""
    #: SQLite's synchronous level: NORMAL survives a killed process, FULL a power cut.
    synchronous: str = "NORMAL"


class SchedulerConfig(_Section, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """``[scheduler]``: which policies are active."""

    requests: str = "fifo"
    jobs: str = "priority"
    #: Name of the selector chain for requests on engines.
    selector: str = "default"


class SelectorConfig(_Section, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """``[selectors.NAME]``: filters in order, scorers with weights, one picker."""

    filters: tuple[str, ...] = ()
    scorers: dict[str, float] = {}
    #: Empty: ``best`` where there are scorers, else ``round_robin``.
    picker: str = ""


class WorkerConfig(_Section, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """``[workers]``: how many processes, and how long a silent one keeps its job."""

    count: Annotated[int, msgspec.Meta(ge=1)] = 2
    #: Seconds a claim is held without a heartbeat.
    lease: Annotated[float, msgspec.Meta(gt=0)] = 30.0
    #: Known rows up to which a run stays in one process.
    inline_rows: Annotated[int, msgspec.Meta(ge=0)] = 64
    #: Seconds one attempt at a job may take in all; 0 is any number.
    deadline: Annotated[float, msgspec.Meta(ge=0)] = 0.0


class QueueConfig(_Section, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """``[queues.NAME]``: how many worker processes a node runs for a queue."""

    #: Kept running while the node's supervisor runs.
    min: Annotated[int, msgspec.Meta(ge=0)] = 0
    #: 0 means ``[workers] count``.
    max: Annotated[int, msgspec.Meta(ge=0)] = 0
    #: Ready jobs that one worker is given before another is started.
    buffer: Annotated[int, msgspec.Meta(ge=1)] = 1
    #: Seconds without work after which a worker above `min` leaves.
    idle: Annotated[float, msgspec.Meta(gt=0)] = 60.0


class ClusterConfig(_Section, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """``[cluster]``: what this machine is called and offers; what is left out is found out."""

    #: Name of this node; empty means the host's name.
    node: str = ""
    #: Cores.
    cpu: Annotated[float, msgspec.Meta(gt=0)] | None = None
    #: Bytes.
    memory: Annotated[int, msgspec.Meta(gt=0)] | None = None
    gpu: Annotated[int, msgspec.Meta(ge=0)] | None = None
    #: Bytes of each GPU.
    gpu_memory: Annotated[int, msgspec.Meta(ge=0)] = 0
    labels: tuple[str, ...] = ()
    #: Name of the selector chain that places jobs on nodes.
    selector: str = "default"
    #: Seconds a placed job is left to its node before any other may take it.
    patience: Annotated[float, msgspec.Meta(ge=0)] = 2.0
    #: Seconds without a heartbeat after which a node counts as gone.
    silence: Annotated[float, msgspec.Meta(gt=0)] = 90.0


class ClassConfig(_Section, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """``[classes.NAME]``: what a service class asks for where neither request nor key says; durations, or empty."""

    ttft: str = ""
    tpot: str = ""
    end_to_end: str = ""


class RetentionConfig(_Section, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """``[retention]``: what `sage tick` removes; None keeps it."""

    #: Days an ended run is kept.
    runs_days: Annotated[float, msgspec.Meta(ge=0)] | None = None
    #: Days a remembered row is kept.
    memo_days: Annotated[float, msgspec.Meta(ge=0)] | None = None


class Config(_Section, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The whole of sage.toml."""

    store: StoreConfig = StoreConfig()
    scheduler: SchedulerConfig = SchedulerConfig()
    selectors: dict[str, SelectorConfig] = {}
    workers: WorkerConfig = WorkerConfig()
    queues: dict[str, QueueConfig] = {}
    cluster: ClusterConfig = ClusterConfig()
    #: ``[limits]``: jobs of a key (a step's ``limit``) that may run at once, everywhere together.
    limits: dict[str, Annotated[int, msgspec.Meta(ge=1)]] = {}
    retention: RetentionConfig = RetentionConfig()
    classes: dict[Literal["interactive", "standard", "batch"], ClassConfig] = {}
    ports: dict[str, int] = {}
    #: ``[gateway]``: read by the plugin that serves it.
    gateway: dict[str, Any] = {}
    #: ``[models.NAME]``: backend, source, and the backend's own options; available to every workflow.
    models: dict[str, dict[str, Any]] = {}


def load_config(start: Path) -> Config:
    """Read ``SAGE_CONFIG``, or the nearest sage.toml at or above `start`; defaults where there is none."""
    named = os.environ.get("SAGE_CONFIG")
    if named:
        path = Path(named).expanduser()
        if not path.is_file():
            raise ConfigError("SAGE_CONFIG", f"{named} is not a file", "unset it, or name a file")
        return _read(path)
    # Path.absolute keeps "..", and what lies above "here/../there" is not "here".
    start = Path(os.path.abspath(start))
    for folder in (start, *start.parents):
        path = folder / "sage.toml"
        if path.is_file():
            return _read(path)
    return Config()


def parse_config(text: str, where: str) -> Config:
    """Parse sage.toml; `where` names the file in errors."""
    try:
        return msgspec.convert(tomllib.loads(text), Config)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(where, f"not valid TOML: {error}") from None
    except msgspec.ValidationError as error:
        raise _explained(where, str(error)) from None


def _read(path: Path) -> Config:
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigError(str(path), f"cannot be read: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise ConfigError(str(path), f"not UTF-8: byte {error.start} cannot be read", "TOML files are UTF-8") from None
    config = parse_config(text, str(path))
    file = config.store.url.removeprefix("sqlite:///")
    if file == config.store.url or file in ("", ":memory:") or Path(file).is_absolute():
        return config
    # One store for a project, whatever folder its commands and workers run in.
    url = f"sqlite:///{Path(os.path.abspath(path)).parent / file}"
    return msgspec.structs.replace(config, store=msgspec.structs.replace(config.store, url=url))


def _explained(where: str, message: str) -> ConfigError:
    # msgspec's text ends " - at `$.store`" or " - at `$.ports[...]`", where it does not name the key.
    problem, _, path = message.partition(" - at ")
    if path.startswith("`key`"):
        # A table's name that is none of those there are: "Invalid enum value 'x' - at `key` in `$.classes`".
        table = path.rstrip("`").rpartition(".")[2]
        known = [str(each) for each in get_args(get_args(_field(table))[0])]
        name = problem.split("'")[1]
        return ConfigError(
            where, f"[{table}.{name}]: there is no {name!r}.{suggest(name, known)}", f"known: {', '.join(known)}"
        )
    keys = path.strip("`").removeprefix("$").strip(".")
    if "unknown field" not in problem:
        return ConfigError(
            where,
            f"{keys.replace('[...]', '.NAME') or 'top level'}: {problem[0].lower()}{problem[1:].replace('`', '')}",
        )
    unknown = problem.split("`")[1]
    section = _section(keys)
    known = [field.name for field in msgspec.structs.fields(section)]
    table = f"[{keys.replace('[...]', '.NAME')}]" if keys else "top level"
    help = suggest(unknown, known).strip() or f"known keys: {', '.join(known)}"
    return ConfigError(where, f"{table}: unknown key {unknown!r}", help)


def _field(name: str) -> Any:
    return {field.name: field.type for field in msgspec.structs.fields(Config)}.get(name, Config)


def _section(keys: str) -> type[msgspec.Struct]:
    kind = _field(keys.removesuffix("[...]"))
    # Tables such as [queues.NAME] are a dict of their sections.
    found: type[msgspec.Struct] = [kind, *get_args(kind)][-1]
    return found
