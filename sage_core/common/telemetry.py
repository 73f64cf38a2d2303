"""Structured logs: every record has a machine name, ``action``, and fields instead of a sentence."""

from __future__ import annotations

import logging
import os
import re
import sys
import time
from collections.abc import Mapping

import msgspec

from sage_core.common.errors import ConfigError

_LOGGER = logging.getLogger("sage")

#: Environment variables with such names hold secrets, and so do fields; ``SAGE_PARAM_…`` are secret parameters.
_SECRET = re.compile(r"PASSWORD|PASSWD|SECRET|TOKEN|API_?KEY|ACCESS_?KEY|CREDENTIAL|^SAGE_PARAM_", re.IGNORECASE)
#: Shorter values are words of the language as often as they are secrets.
_SHORTEST = 6
#: The password of a URL.
_IN_URL = re.compile(r"(://[^/@\s:]*:)[^/@\s]+@")
#: What ``SAGE_LOG`` may be.
_FORMATS = ("text", "json")


def log(action: str, *, level: int = logging.INFO, **fields: object) -> None:
    """Emit one record named `action`; handlers find the fields in ``record.sage``, secrets already replaced."""
    if _LOGGER.isEnabledFor(level):
        clean = redacted(fields, os.environ)
        shown = " ".join(f"{key}={value}" for key, value in clean.items())
        _LOGGER.log(level, "%s", f"{action} {shown}".rstrip(), extra={"action": action, "sage": clean})


def redacted(fields: Mapping[str, object], environ: Mapping[str, str]) -> dict[str, object]:
    """The fields as numbers and texts, with ``***`` in place of every secret that the environment gives away."""
    secrets = [value for name, value in environ.items() if len(value) >= _SHORTEST and _SECRET.search(name)]
    return {name: "***" if _names_secret(name) else _plain(value, secrets) for name, value in fields.items()}


def log_to_stderr(environ: Mapping[str, str] | None = None) -> None:
    """Send what this process logs to stderr: as text, or where ``SAGE_LOG`` says ``json`` as one object a line."""
    chosen = (os.environ if environ is None else environ).get("SAGE_LOG") or "text"
    if chosen not in _FORMATS:
        raise ConfigError("SAGE_LOG", f"{chosen!r} is no format of logs", f"use one of: {', '.join(_FORMATS)}")
    handler = logging.StreamHandler(sys.stderr)
    text = logging.Formatter(f"%(asctime)s {os.getpid()} %(message)s")
    handler.setFormatter(JsonLines() if chosen == "json" else text)
    logging.basicConfig(level=logging.INFO, handlers=[handler])


class JsonLines(logging.Formatter):
    """One JSON object a line; what other libraries log has the action ``message``."""

    def format(self, record: logging.LogRecord) -> str:
        fields = getattr(record, "sage", None)
        if fields is None:
            fields = redacted({"logger": record.name, "message": record.getMessage()}, os.environ)
        if record.exc_info:
            fields = {**fields, **redacted({"traceback": self.formatException(record.exc_info)}, os.environ)}
        moment = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created)) + f".{int(record.msecs):03d}Z"
        head = {"time": moment, "level": record.levelname.lower(), "action": getattr(record, "action", "message")}
        return msgspec.json.encode({**head, "process": record.process, **fields}).decode()


def _names_secret(field: str) -> bool:
    # `tokens` counts what a model wrote.
    return bool(_SECRET.search(field)) and field != "tokens"


def _plain(value: object, secrets: list[str]) -> object:
    if value is None or isinstance(value, bool | int | float):
        return value
    text = _IN_URL.sub(r"\1***@", str(value))
    for secret in secrets:
        text = text.replace(secret, "***")
    return text
