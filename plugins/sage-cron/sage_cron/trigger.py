"""Fire times of five-field cron schedules; APScheduler steps through the wall clock, and the time zone is laid on top.

APScheduler is asked in UTC, where no hour is skipped and none comes twice: in a zone it fires twice at a time that the
clock shows twice, and counts weekdays from Monday.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from datetime import UTC, datetime, timedelta, tzinfo

from apscheduler.triggers.cron import CronTrigger

from sage_core import parse_cron

_MINUTE, _DAY = timedelta(minutes=1), timedelta(days=1)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class Cron:
    """Fires when the wall clock of a zone shows a time that the schedule admits.

    A schedule of every hour goes by time passed: it fires in both of two equal hours, and a skipped hour holds nothing
    to make up for. Any other fires once where the clock shows a time twice, the first time, and where the clock skips
    its time, at the end of the gap: once, however many of its times lie in there.
    """

    def next_fire(self, spec: Mapping[str, object], after: int, zone: tzinfo) -> int | None:
        clock = _Clock(spec.get("schedule"))
        moment = _EPOCH + timedelta(milliseconds=after)
        found = clock.by_time_passed(moment, zone) if clock.hourly else clock.by_wall(moment, zone)
        return (found - _EPOCH) // timedelta(milliseconds=1)


class _Clock:
    """A schedule as times of a wall clock: naive, and not of any zone."""

    def __init__(self, schedule: object) -> None:
        minutes, hours, days, months, weekdays = parse_cron(schedule)
        words = str(schedule).split()
        self.hourly = len(hours) == 24
        # Cron's Sunday is 0 or 7; APScheduler's week begins on Monday, with 0.
        by_weekday = {"day_of_week": _listed({(day - 1) % 7 for day in weekdays}, 7)}
        by_day = {"day": _listed(days, 31)}
        time = {"minute": _listed(minutes, 60), "hour": _listed(hours, 24), "month": _listed(months, 12)}
        either = not words[2].startswith("*") and not words[4].startswith("*")
        kinds = [by_day, by_weekday] if either else [by_day | by_weekday]
        self._triggers = [CronTrigger(**time, **kind, timezone=UTC) for kind in kinds]

    def first(self, wall: datetime) -> datetime:
        """The first time of the schedule at or after a full minute."""
        # None only past the year 9999: `parse_cron` has refused dates that never come.
        found: list[datetime] = [
            trigger.get_next_fire_time(None, wall.replace(tzinfo=UTC)) for trigger in self._triggers
        ]
        return min(found).replace(tzinfo=None)

    def by_wall(self, after: datetime, zone: tzinfo) -> datetime:
        """The first moment later than `after` that stands for a time of the schedule."""
        wall = _full_minute(after, zone)
        while True:
            wall = self.first(wall + _MINUTE)
            # In the second of two equal hours, the next times of the schedule lie in the first of them.
            if (moment := _moment_of(wall, zone)) > after:
                return moment

    def by_time_passed(self, after: datetime, zone: tzinfo) -> datetime:
        """The first moment later than `after` at which the clock shows a time of the schedule."""
        wall, offset = _full_minute(after, zone) + _MINUTE, _offset(after, zone)
        while True:
            found = (self.first(wall) - offset).replace(tzinfo=UTC)
            change = _change(after, found, zone)
            if change is None:
                return found
            after, offset = change, _offset(change, zone)
            wall = _full_minute(change, zone)


def _listed(values: Collection[int], full: int) -> str:
    return "*" if len(values) == full else ",".join(map(str, sorted(values)))


def _offset(moment: datetime, zone: tzinfo) -> timedelta:
    return moment.astimezone(zone).utcoffset() or timedelta()


def _full_minute(moment: datetime, zone: tzinfo) -> datetime:
    """What the wall clock shows, without seconds."""
    return moment.astimezone(zone).replace(tzinfo=None, fold=0, second=0, microsecond=0)


def _moment_of(wall: datetime, zone: tzinfo) -> datetime:
    """When the clock shows `wall` for the first time, or where it skips it, the end of the gap."""
    first, second = (wall.replace(tzinfo=zone, fold=fold).astimezone(UTC) for fold in (0, 1))
    if first.astimezone(zone).replace(tzinfo=None) == wall:
        return first
    # Inside a gap the two readings lie on its two sides, the later one first.
    return _change(second, first, zone) or first


def _change(low: datetime, high: datetime, zone: tzinfo) -> datetime | None:
    """The first moment later than `low`, and not later than `high`, from which the clock stands differently."""
    offset = _offset(low, zone)
    while low < high and _offset(min(low + _DAY, high), zone) == offset:
        low += _DAY
    if low >= high:
        return None
    high = min(low + _DAY, high)
    while high - low > timedelta(seconds=1):
        middle = low + (high - low) / 2
        low, high = (low, middle) if _offset(middle, zone) != offset else (middle, high)
    # Clocks are changed on full seconds.
    return high.replace(microsecond=0)
