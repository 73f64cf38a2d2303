"""Models added with `sage models add`: a folder each, described by a `model.toml` in the words of ``[models.NAME]``."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sage_core.common.errors import ConfigError
from sage_core.common.paths import Paths

#: The file that makes a folder below `Paths.models` a model; written last, so a folder without it is no model.
FILE = "model.toml"
#: The table in it that says how the model came to be; it is no setting of the model.
ORIGIN = "added"


def added_models(paths: Paths) -> dict[str, dict[str, Any]]:
    """Return their ``[models.NAME]`` tables by name, `source` as an absolute path; sage.toml and workflows go first."""
    found = {}
    for file in sorted(paths.models.glob(f"*/{FILE}")):
        table = _read(file)
        table.pop(ORIGIN, None)
        source = table.get("source", ".")
        found[file.parent.name] = {**table, "source": str(file.parent / source) if ":" not in source else source}
    return found


def read_origin(paths: Paths, name: str) -> dict[str, Any]:
    """Where an added model came from: the source and the options it was made with."""
    origin: dict[str, Any] = _read(paths.models / name / FILE).get(ORIGIN, {})
    return origin


def write_model(folder: Path, backend: str, options: Mapping[str, object], origin: Mapping[str, object]) -> None:
    """Describe the model in `folder`; its source is the folder itself, so that the folder can be moved."""
    settings = {"backend": backend, "source": ".", **options}
    lines = ["# Written by `sage models add`.", *_lines(settings), "", f"[{ORIGIN}]", *_lines(origin)]
    (folder / FILE).write_text("\n".join(lines) + "\n", encoding="utf-8")


def _read(file: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(file.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ConfigError(str(file), f"cannot be read: {error}", "remove the folder and add the model anew") from None


def _lines(table: Mapping[str, object]) -> list[str]:
    # JSON's strings, numbers, booleans and lists are TOML's; None has no form there and is left out.
    return [f"{json.dumps(key)} = {json.dumps(value)}" for key, value in table.items() if value is not None]
