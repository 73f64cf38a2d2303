"""Loaded by every Python process that has this folder in its path: shifts what Python's `time` says of the day."""

import os
import time

_SHIFT = float(os.environ.get("SAGE_CHAOS_SHIFT", "0"))
_time, _time_ns = time.time, time.time_ns


def _shifted() -> float:
    return _time() + _SHIFT


def _shifted_ns() -> int:
    return _time_ns() + int(_SHIFT * 1e9)


time.time, time.time_ns = _shifted, _shifted_ns
