"""sage.toml as frozen records: unknown keys are refused by name, every value has a default."""

from __future__ import annotations

import os
import tomllib
from pathlib import Path
from typing import Any

import msgspec

from sage_core.common.errors import ConfigError, suggest

_Section = msgspec.Struct


class StoreConfig(_Section, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """``[store]``: where jobs are kept."""

    #: ``sqlite:///PATH``; empty means the project's `.sage/sage.db`.
    url: str = ""
    #: SQLite's synchronous level: NORMAL survives a killed process, FULL a power cut.
    synchronous: str = "NORMAL"


class SchedulerConfig(_Section, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """``[scheduler]``: which policies are active."""

    requests: str = "fifo"
    jobs: str = "fifo"
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

    count: int = 2
    #: Seconds a claim is held without a heartbeat.
    lease: float = 30.0
    #: Known rows up to which a run stays in one process.
    inline_rows: int = 64


class Config(_Section, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The whole of sage.toml."""

    store: StoreConfig = StoreConfig()
    scheduler: SchedulerConfig = SchedulerConfig()
    selectors: dict[str, SelectorConfig] = {}
    workers: WorkerConfig = WorkerConfig()
    ports: dict[str, int] = {}
    #: ``[models.NAME]``: backend, source, and the backend's own options; available to every workflow.
    models: dict[str, dict[str, Any]] = {}


def load_config(start: Path) -> Config:
    """Read ``SAGE_CONFIG``, or the nearest sage.toml at or above `start`; defaults where there is none."""
    named = os.environ.get("SAGE_CONFIG")
    if named:
        path = Path(named)
        if not path.is_file():
            raise ConfigError("SAGE_CONFIG", f"{named} is not a file")
        return parse_config(path.read_text(), str(path))
    start = start.absolute()
    for folder in (start, *start.parents):
        path = folder / "sage.toml"
        if path.is_file():
            return parse_config(path.read_text(), str(path))
    return Config()


def parse_config(text: str, where: str) -> Config:
    """Parse sage.toml; `where` names the file in errors."""
    try:
        return msgspec.convert(tomllib.loads(text), Config)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(where, f"not valid TOML: {error}") from None
    except msgspec.ValidationError as error:
        raise ConfigError(where, str(error), _closest_key(str(error))) from None


def _closest_key(message: str) -> str:
    if "unknown field" not in message:
        return ""
    unknown = message.split("`")[1]
    names = [
        field.name
        for section in (Config, StoreConfig, SchedulerConfig, SelectorConfig, WorkerConfig)
        for field in msgspec.structs.fields(section)
    ]
    return suggest(unknown, names).strip() or f"known keys: {', '.join(dict.fromkeys(names))}"
