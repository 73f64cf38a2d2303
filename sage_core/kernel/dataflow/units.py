"""Durations and sizes as people write them: ``10m``, ``1h30m``, ``250ms``, ``2GiB``, ``512MB``."""

from __future__ import annotations

import math
import re

from sage_core.common.errors import BadValue

_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0}
_BYTES: dict[str, int] = {"B": 1} | {
    f"{prefix}{suffix}": base ** (power + 1)
    for power, prefix in enumerate("kMGTP")
    for suffix, base in (("B", 1_000), ("iB", 1_024))
}
_BYTES["KB"], _BYTES["KiB"] = 1000, 1024
_NUMBER = r"(\d{1,12}(?:\.\d{1,6})?)"
_PART = re.compile(rf"{_NUMBER}\s*(ms|[smhd])\s*", re.ASCII)
_SIZE = re.compile(rf"{_NUMBER}\s*([A-Za-z]+)", re.ASCII)


def seconds(text: object) -> float:
    """Read a duration; each unit may appear once, largest first."""
    if not isinstance(text, str):
        raise BadValue(f"a duration is a text with a unit, not {_shown(text)}", _duration_help(text))
    total, at, last = 0.0, 0, math.inf
    stripped = text.strip()
    while part := _PART.match(stripped, at):
        unit = _SECONDS[part[2]]
        if unit >= last:
            raise BadValue(f"{text!r} is not a duration: the units go from large to small, each once", _DURATIONS)
        total, at, last = total + float(part[1]) * unit, part.end(), unit
    if at != len(stripped) or not stripped:
        raise BadValue(f"{text!r} is not a duration", _duration_help(text))
    return total


def size(value: object) -> int:
    """Read a size in bytes; a bare integer is a number of bytes."""
    if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
        return value
    match = _SIZE.fullmatch(value.strip()) if isinstance(value, str) else None
    if match is None:
        raise BadValue(f"{_shown(value)} is not a size", _SIZES)
    if match[2] not in _BYTES:
        raise BadValue(f"{value!r} is not a size: unit {match[2]!r} is unknown", _SIZES)
    return int(float(match[1]) * _BYTES[match[2]])


_DURATIONS = 'write a number and a unit (ms, s, m, h, d), such as "250ms", "10m" or "1h30m"'
_SIZES = 'write a number and a unit (B, kB, MB, GB, KiB, MiB, GiB), such as "512MB" or "2GiB"'


def _duration_help(value: object) -> str:
    bare = str(value).strip()
    if isinstance(value, (int, float, str)) and re.fullmatch(r"\d+(\.\d+)?", bare):
        return f'add a unit, such as "{bare}s" or "{bare}m"'
    return _DURATIONS


def _shown(value: object) -> str:
    return repr(value) if isinstance(value, (str, int, float)) and not isinstance(value, bool) else str(value).lower()
