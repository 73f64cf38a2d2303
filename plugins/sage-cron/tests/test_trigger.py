"""Fire times against a count of every minute of a year, which knows neither APScheduler nor the core's parser."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from functools import cache
from zoneinfo import ZoneInfo

import pytest
from apscheduler.triggers.cron import CronTrigger
from sage_cron.trigger import Cron

from sage_core import BadValue
from sage_core.testing import TriggerContract

MINUTE = timedelta(minutes=1)
NAMES = {"mon": 1, "tue": 2, "wed": 3, "thu": 4, "fri": 5, "sat": 6, "sun": 0, "jan": 1, "mar": 3, "oct": 10, "nov": 11}
#: Per field, in order: the smallest and the largest value.
BOUNDS = ((0, 59), (0, 23), (1, 31), (1, 12), (0, 7))


class TestCron(TriggerContract):
    make = Cron
    specs = (
        {"schedule": "*/5 * * * *"},
        {"schedule": "30 6 * * mon-fri"},
        {"schedule": "0 0 1 1,7 *", "overlap": "skip"},
        {"schedule": "15 12 13 * fri"},
    )
    wrong = ({}, {"schedule": "0 25 * * *"}, {"schedule": "0 0 30 2 *"}, {"schedule": "@daily"}, {"schedule": 5})


def admitted(word: str, low: int, high: int) -> set[int]:
    """The values of one field, spelt out."""
    found: set[int] = set()
    for part in word.split(","):
        span, _, step = part.partition("/")
        first, _, last = span.partition("-")
        start = low if first == "*" else NAMES.get(first) if first in NAMES else int(first)
        end = high if first == "*" or (step and not last) else int(NAMES.get(last, last)) if last else start
        assert start is not None
        assert end is not None
        found |= set(range(start, end + 1, int(step or 1)))
    return found


class Rule:
    """A schedule as a yes or no for a wall clock's minute."""

    def __init__(self, text: str) -> None:
        words = text.split()
        self.minutes, self.hours, self.days, self.months, week = (
            admitted(word, *bounds) for word, bounds in zip(words, BOUNDS, strict=True)
        )
        self.weekdays = {day % 7 for day in week}
        self.either = words[2][0] != "*" and words[4][0] != "*"
        self.hourly = self.hours == set(range(24))

    def holds(self, wall: datetime) -> bool:
        if wall.minute not in self.minutes or wall.hour not in self.hours or wall.month not in self.months:
            return False
        day, weekday = wall.day in self.days, wall.isoweekday() % 7 in self.weekdays
        return (day or weekday) if self.either else (day and weekday)


@cache
def minutes(zone: str, year: int) -> list[tuple[datetime, datetime, bool]]:
    """Every minute of a year: the moment, what the clock shows, and whether it shows that for the second time."""
    moment, end = datetime(year, 1, 1, tzinfo=UTC), datetime(year + 1, 1, 1, tzinfo=UTC)
    found = []
    while moment < end:
        local = moment.astimezone(ZoneInfo(zone))
        found.append((moment, local.replace(tzinfo=None, fold=0), local.fold == 1))
        moment += MINUTE
    return found


def counted(text: str, zone: str, year: int) -> list[datetime]:
    """Fire times by counting."""
    rule, found = Rule(text), []
    before: datetime | None = None
    for moment, wall, again in minutes(zone, year):
        fires = rule.holds(wall) and (rule.hourly or not again)
        if before is not None and wall - before > MINUTE and not rule.hourly:
            skipped = int((wall - before) / MINUTE)
            fires = fires or any(rule.holds(before + n * MINUTE) for n in range(1, skipped))
        if fires:
            found.append(moment)
        before = wall
    return found


def fired(text: str, zone: str, year: int) -> list[datetime]:
    """Fire times by asking for one after the other."""
    end = int(datetime(year + 1, 1, 1, tzinfo=UTC).timestamp() * 1000)
    moment: int | None = int(datetime(year, 1, 1, tzinfo=UTC).timestamp() * 1000) - 1
    found = []
    while moment is not None:
        moment = Cron().next_fire({"schedule": text}, moment, ZoneInfo(zone))
        if moment is None or moment >= end:
            break
        found.append(datetime.fromtimestamp(moment / 1000, UTC))
    return found


#: With how often each fires in 2026: counted by hand where that is easy.
SCHEDULES = [
    "30 2 * * *",
    "0 1-3 * * *",
    "*/20 2 * 3,10,11 *",
    "0 */2 * * sun",
    "59 23 31 * *",
    "0 0 13 * fri",
    "15 4 */2 * 5",
    "0 12 1-7 * */7",
    "5/25 0 * mar,oct sun,6-7",
    "45 * * * *",
    "0 * 25-31 mar,oct-nov sun",
]


@pytest.mark.parametrize("zone", ["Europe/Berlin", "America/New_York"])
@pytest.mark.parametrize("text", SCHEDULES)
def test_a_year_of_fire_times_is_what_counting_finds(text: str, zone: str) -> None:
    expected = counted(text, zone, 2026)
    assert expected
    assert fired(text, zone, 2026) == expected


@pytest.mark.parametrize(
    ("text", "zone", "year"),
    [
        # A clock that is changed by half an hour, one that is changed at midnight, and one that skipped a whole day.
        ("*/15 1,2 * 4,10 *", "Australia/Lord_Howe", 2026),
        ("*/10 * * 4,10 *", "Australia/Lord_Howe", 2026),
        ("0 0 * * *", "Asia/Beirut", 2026),
        ("30 23,0 * * *", "Asia/Beirut", 2026),
        ("0 9 * 12 *", "Pacific/Apia", 2011),
        ("0 * * 12 *", "Pacific/Apia", 2011),
    ],
)
def test_stranger_clocks(text: str, zone: str, year: int) -> None:
    assert fired(text, zone, year) == counted(text, zone, year)


@pytest.mark.parametrize(
    ("text", "count"),
    [("30 2 * * *", 365), ("0 1-3 * * *", 3 * 365), ("59 23 31 * *", 7), ("45 * * * *", 8760), ("0 0 29 2 *", 0)],
)
def test_how_often_a_year_has_it(text: str, count: int) -> None:
    """The skipped hour's own schedule fires on all days of a year, and twice on none."""
    expected = count - 1 if text == "0 1-3 * * *" else count
    assert len(fired(text, "Europe/Berlin", 2026)) == expected


def berlin(text: str) -> datetime:
    return datetime.fromisoformat(text)


def after(schedule: str, moment: datetime) -> datetime:
    found = Cron().next_fire({"schedule": schedule}, int(moment.timestamp() * 1000), ZoneInfo("Europe/Berlin"))
    assert found is not None
    return datetime.fromtimestamp(found / 1000, UTC)


def test_a_skipped_time_fires_at_the_end_of_the_gap() -> None:
    before = berlin("2026-03-29T01:59:59+01:00")
    assert after("30 2 * * *", before) == berlin("2026-03-29T03:00:00+02:00")
    assert after("*/7 2 * * *", before) == berlin("2026-03-29T03:00:00+02:00")
    assert after("30 2 * * *", berlin("2026-03-29T03:00:00+02:00")) == berlin("2026-03-30T02:30:00+02:00")


def test_a_repeated_time_fires_the_first_time() -> None:
    assert after("30 2 * * *", berlin("2026-10-25T02:29:00+02:00")) == berlin("2026-10-25T02:30:00+02:00")
    assert after("30 2 * * *", berlin("2026-10-25T02:29:00+01:00")) == berlin("2026-10-26T02:30:00+01:00")


def test_a_schedule_of_every_hour_goes_by_time_passed() -> None:
    assert after("30 * * * *", berlin("2026-10-25T02:30:00+02:00")) == berlin("2026-10-25T02:30:00+01:00")
    assert after("30 * * * *", berlin("2026-03-29T01:30:00+01:00")) == berlin("2026-03-29T03:30:00+02:00")


def test_a_leap_day_may_be_years_ahead() -> None:
    assert after("0 12 29 2 *", berlin("2096-03-01T00:00:00+01:00")) == berlin("2104-02-29T12:00:00+01:00")
    assert after("0 12 29 2 */7", berlin("2026-01-01T00:00:00+01:00")) == berlin("2032-02-29T12:00:00+01:00")


def test_sunday_is_0_and_7() -> None:
    start = berlin("2026-11-23T00:00:00+01:00")
    assert after("0 9 * * 0", start) == after("0 9 * * 7", start) == after("0 9 * * sun", start)
    assert after("0 9 * * 0", start) == berlin("2026-11-29T09:00:00+01:00")
    assert after("0 9 * * 1", start) == berlin("2026-11-23T09:00:00+01:00")


def test_an_impossible_schedule_is_refused_with_a_way_out() -> None:
    with pytest.raises(BadValue, match="'0 0 31 2 \\*' never fires: no such month has day 31\n  help: five fields"):
        Cron().next_fire({"schedule": "0 0 31 2 *"}, 0, UTC)


def test_why_the_library_is_asked_in_utc() -> None:
    """What docs/decisions/schedules.md says of APScheduler; when this fails, its reasons have gone."""
    zone = ZoneInfo("Europe/Berlin")

    def asked(schedule: str, moment: datetime, count: int) -> list[str]:
        trigger, found = CronTrigger.from_crontab(schedule, timezone=zone), []
        for _ in range(count):
            moment = trigger.get_next_fire_time(None, moment.astimezone(zone)).astimezone(UTC)
            found.append(moment.isoformat())
            moment += timedelta(microseconds=1)
        return found

    twice = asked("30 2 * * *", berlin("2026-10-25T00:00:00+02:00"), 2)
    assert twice == ["2026-10-25T00:30:00+00:00", "2026-10-25T01:30:00+00:00"]
    assert asked("30 2 * * *", berlin("2026-03-29T00:00:00+01:00"), 1) == ["2026-03-29T01:30:00+00:00"]
    passed = asked("*/30 1-3 * * *", berlin("2026-03-29T01:30:00+01:00"), 2)[1]
    assert passed == "2026-03-29T01:00:00+00:00"
    monday = asked("0 12 * * 0", berlin("2026-11-22T00:00:00+01:00"), 1)
    assert monday == ["2026-11-23T11:00:00+00:00"]
    friday_13th = asked("0 12 13 * fri", berlin("2026-11-22T00:00:00+01:00"), 1)
    assert friday_13th == ["2027-08-13T10:00:00+00:00"]
