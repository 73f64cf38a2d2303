"""When a trigger fires, and which of the times that have passed are made up for: pure, so any process decides alike."""

from __future__ import annotations

import zoneinfo
from collections.abc import Mapping
from datetime import UTC, tzinfo
from typing import Any, Literal

from sage_core.common.contracts import TriggerKind
from sage_core.common.cron import check_zone
from sage_core.common.errors import PluginError, SageError, UsageError
from sage_core.common.host import Host
from sage_core.common.records import Record

#: How late, in ms, a fire time may be dealt with where nothing is caught up.
GRACE_MS = 300_000
_MINUTE = 60_000

#: Where the plugin of a kind is named when it is missing.
_PLUGINS = {"cron": "sage-cron"}


class Kind(Record):
    """One declared trigger, and what understands it."""

    trigger: TriggerKind
    spec: Mapping[str, Any]
    zone: tzinfo
    plugin: str = ""

    def after(self, moment: int) -> int | None:
        """The first fire time later than a moment, in epoch ms."""
        try:
            found = self.trigger.next_fire(self.spec, moment, self.zone)
        except SageError:
            raise
        except Exception as error:
            raise PluginError(self.plugin, f"its trigger raised {type(error).__name__}: {error}") from error
        if found is not None and found <= moment:
            # Whoever asks for one time after another would never come to an end.
            raise PluginError(self.plugin, f"its trigger fires at {found}, which is not later than {moment}")
        return found


class Due(Record):
    """A fire time that has come, and whether it is acted on or passed over."""

    at: int
    act: Literal["fire", "miss"]


def kind_of(host: Host, kind: str, spec: Mapping[str, Any]) -> Kind:
    """What understands a declared trigger, in its zone; raises when a plugin or a time zone is missing here."""
    if kind not in host.triggers:
        plugin = _PLUGINS.get(kind, f"sage-{kind}")
        hint = f" {host.triggers.hint}" if host.triggers.hint else ""
        raise UsageError(f"No plugin fires {kind!r} triggers.{hint}", f"sage plugins install {plugin}")
    target = host.triggers[kind]
    if not isinstance(target, type) or not isinstance(trigger := target(), TriggerKind):
        raise PluginError(host.triggers.origin(kind), f"trigger {kind!r} is not a class that is a TriggerKind")
    name = check_zone(spec.get("timezone", "UTC"))
    zone = UTC if name == "UTC" else zoneinfo.ZoneInfo(name)
    return Kind(trigger=trigger, spec=spec, zone=zone, plugin=host.triggers.origin(kind))


def due(kind: Kind, first: int, now: int, *, limit: int) -> tuple[list[Due], int | None]:
    """What to do about the fire times from `first` to `now`, at most `limit` of them, and the one that comes next.

    With ``catchup = "all"`` each fires; else only the latest does, under ``"none"`` only within `GRACE_MS`, and of
    those before it the first is named as missed.
    """
    catchup = kind.spec.get("catchup", "none")
    if catchup == "all":
        return _every(kind, first, now, limit)
    latest = _latest(kind, first, now)
    late = catchup == "none" and now - latest > GRACE_MS
    found = [Due(at=first, act="miss")] if latest != first else []
    return [*found, Due(at=latest, act="miss" if late else "fire")], kind.after(latest)


def times(kind: Kind, start: int, end: int, *, limit: int) -> list[int]:
    """The fire times from `start` to `end`, both included, at most `limit`."""
    found: list[int] = []
    moment = kind.after(start - 1)
    while moment is not None and moment <= end and len(found) < limit:
        found.append(moment)
        moment = kind.after(moment)
    return found


def _every(kind: Kind, first: int, now: int, limit: int) -> tuple[list[Due], int | None]:
    # What was put down as the next time counts, whether or not the schedule still has it.
    found = [first, *times(kind, first + 1, now, limit=limit - 1)]
    return [Due(at=at, act="fire") for at in found], kind.after(found[-1])


def _latest(kind: Kind, first: int, now: int) -> int:
    """The last fire time that has come."""
    latest, back = first, _MINUTE
    # Looks back further and further: a month of minutes must not be stepped through.
    while back < now - first:
        found = kind.after(now - back)
        if found is not None and found <= now:
            latest = found
            break
        back *= 4
    while (following := kind.after(latest)) is not None and following <= now:
        latest = following
    return latest
