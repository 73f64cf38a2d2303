"""``[gateway]`` of sage.toml as a frozen record: unknown keys are refused by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Annotated, Any, Literal

import msgspec

from sage_core import BadValue, ConfigError, QueueLimits
from sage_core.serving import seconds, size
from sage_gateway.limits import Price

SECOND = 1_000_000_000


class QueueSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """``[gateway.queue]``: what may wait for each model that says nothing of its own."""

    requests: Annotated[int, msgspec.Meta(ge=1)] = 10_000
    bytes: str | int = "1GiB"
    wait: str = "120s"


class FileSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """``[gateway.files]``: how long uploaded files, and batches and what they left, are kept."""

    #: From when a file was made and a batch has ended; empty is for ever.
    keep: str = "30d"

    @property
    def seconds(self) -> float | None:
        """The same as a number; None is for ever."""
        return seconds(self.keep) if self.keep else None


class GatewaySettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The whole table."""

    #: Address to listen on; without keys only loopback is allowed.
    host: str = "127.0.0.1"
    #: Where other processes find the gateway; read by clients, not by the gateway.
    url: str = ""
    #: `granian` is an extra.
    server: Literal["hypercorn", "granian"] = "hypercorn"
    #: Largest request body, and how long a client may take to send one.
    max_body: str | int = "32MiB"
    body_timeout: str = "60s"
    #: How long a connection may stay without a complete request head.
    idle: str = "20s"
    #: How long a client may leave an answer unread before it is given up.
    write_timeout: str = "120s"
    #: How long requests may go on after Ctrl-C.
    grace: str = "10s"
    #: Requests whose decisions are kept in memory for ``/sage/v1/requests/{id}``.
    decisions: Annotated[int, msgspec.Meta(ge=0)] = 10_000
    #: Whether messages may point at images and files, which engines would fetch.
    remote_media: bool = False
    queue: QueueSettings = QueueSettings()
    files: FileSettings = FileSettings()
    #: What a million tokens of a model cost, against the budgets of keys; 1 in and 1 out where a model is not named.
    prices: dict[str, Price] = {}

    @property
    def queue_limits(self) -> QueueLimits:
        """The default limits of every pool."""
        queue = self.queue
        return QueueLimits(requests=queue.requests, bytes=size(queue.bytes), wait=round(seconds(queue.wait) * SECOND))


def read_settings(table: Mapping[str, Any]) -> GatewaySettings:
    """Read the table; raises `ConfigError` for what cannot be."""
    try:
        settings = msgspec.convert(dict(table), GatewaySettings)
    except msgspec.ValidationError as error:
        raise ConfigError("[gateway]", str(error).replace("`", "'")) from None
    _checked("[gateway] max_body", lambda: size(settings.max_body))
    for name in ("body_timeout", "idle", "write_timeout", "grace"):
        _checked(f"[gateway] {name}", partial(seconds, getattr(settings, name)))
    _checked("[gateway.queue]", lambda: settings.queue_limits)
    _checked("[gateway.files] keep", lambda: settings.files.seconds)
    return settings


def _checked(where: str, read: Callable[[], object]) -> None:
    try:
        read()
    except BadValue as error:
        raise ConfigError(where, error.problem, error.help) from None
