"""Structured logs: every record has a machine name, ``action``, and fields instead of a sentence."""

from __future__ import annotations

import logging

_LOGGER = logging.getLogger("sage")


def log(action: str, *, level: int = logging.INFO, **fields: object) -> None:
    """Emit one record named `action`; handlers find the fields in ``record.sage``."""
    if _LOGGER.isEnabledFor(level):
        shown = " ".join(f"{key}={value}" for key, value in fields.items())
        _LOGGER.log(level, f"{action} {shown}".rstrip(), extra={"action": action, "sage": fields})
