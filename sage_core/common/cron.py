"""Five-field cron expressions and time zones: the vocabulary of those who check a schedule and those who fire it."""

from __future__ import annotations

import re
import zoneinfo
from collections.abc import Mapping

from sage_core.common.errors import BadValue, suggest

_WORDS = (
    "sun", "mon", "tue", "wed", "thu", "fri", "sat",
    "jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec",
)  # fmt: skip
_MONTHS = {name: index for index, name in enumerate(_WORDS[7:], 1)}
_DAYS = {name: index for index, name in enumerate(_WORDS[:7])}
_FIELDS: tuple[tuple[str, int, int, Mapping[str, int]], ...] = (
    ("minute", 0, 59, {}),
    ("hour", 0, 23, {}),
    ("day of the month", 1, 31, {}),
    ("month", 1, 12, _MONTHS),
    # Both 0 and 7 are Sunday.
    ("day of the week", 0, 7, _DAYS),
)
_LONGEST = {1: 31, 2: 29, 3: 31, 4: 30, 5: 31, 6: 30, 7: 31, 8: 31, 9: 30, 10: 31, 11: 30, 12: 31}
_PART = re.compile(r"(\*|[A-Za-z0-9]+(?:-[A-Za-z0-9]+)?)(?:/(\d+))?", re.ASCII)
_HELP = 'five fields: minute hour day month weekday, such as "0 3 * * mon-fri" or "*/15 * * * *"'


def parse_cron(text: object) -> tuple[frozenset[int], ...]:
    """The values each field admits; raises `BadValue` naming the field, also for a date that never comes.

    A day fires when its day of the month and its weekday both do, or either of them where neither is written with `*`.
    """
    if not isinstance(text, str):
        raise BadValue("a schedule is a text", _HELP)
    words = text.split()
    if text.lstrip().startswith("@"):
        raise BadValue(f"{text!r} is not a cron schedule: names such as @daily are not supported", _HELP)
    if len(words) != len(_FIELDS):
        raise BadValue(f"{text!r} is not a cron schedule: it has {len(words)} fields, not 5", _HELP)
    found = tuple(_field(word, *field) for word, field in zip(words, _FIELDS, strict=True))
    days, months = found[2], found[3]
    # Where both kinds of day are restricted the weekday fires by itself, as in every cron.
    if words[4].startswith("*") and min(days) > max(_LONGEST[month] for month in months):
        raise BadValue(f"{text!r} never fires: no such month has day {min(days)}", _HELP)
    return found


def check_zone(name: object) -> str:
    """A time zone's name, proven to exist; raises `BadValue`."""
    if not isinstance(name, str):
        raise BadValue("a time zone is a text", 'such as "Europe/Berlin" or "UTC"')
    if name == "UTC":
        return name
    try:
        zoneinfo.ZoneInfo(name)
    except (zoneinfo.ZoneInfoNotFoundError, ValueError, OSError):
        known = sorted(zoneinfo.available_timezones())
        if not known:
            raise BadValue(
                f"time zone {name!r} cannot be checked: this machine has no time zone database",
                "install the system package tzdata, or `pip install tzdata`",
            ) from None
        help = suggest(name, known).strip() or 'write a name such as "Europe/Berlin" or "UTC"'
        raise BadValue(f"no time zone is named {name!r}", help) from None
    return name


def _field(word: str, name: str, low: int, high: int, names: Mapping[str, int]) -> frozenset[int]:
    values: set[int] = set()
    for part in word.split(","):
        match = _PART.fullmatch(part)
        if match is None:
            raise BadValue(f"cron field {name}: {part!r} cannot be read", _HELP)
        first, last = low, high
        if match[1] != "*":
            start, dash, end = match[1].partition("-")
            first = _number(start, name, low, high, names)
            # ``5/10`` starts at 5 and goes on to the end of the range.
            last = _number(end, name, low, high, names) if dash else high if match[2] else first
        step = int(match[2] or 1)
        if step == 0:
            raise BadValue(f"cron field {name}: the step in {part!r} is 0", _HELP)
        if first > last:
            raise BadValue(
                f"cron field {name}: {part!r} runs backwards", f"write it as two ranges: {first}-{high},{low}-{last}"
            )
        values.update(range(first, last + 1, step))
    return frozenset(values)


def _number(text: str, name: str, low: int, high: int, names: Mapping[str, int]) -> int:
    value = names.get(text.lower())
    if value is None and text.isdecimal():
        value = int(text[:6])
    if value is None or not low <= value <= high:
        allowed = f"{low}-{high}" + (f" or {', '.join(names)}" if names else "")
        raise BadValue(f"cron field {name}: {text!r} is not in {allowed}", _HELP)
    return value
