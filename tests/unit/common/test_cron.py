from __future__ import annotations

import pytest

from sage_core.common import cron
from sage_core.common.errors import BadValue


def test_fields_admit_values() -> None:
    minute, hour, day, month, weekday = cron.parse_cron("*/20 8-10,22 1,15 Jan-Mar/2 mon-fri")
    assert sorted(minute) == [0, 20, 40]
    assert sorted(hour) == [8, 9, 10, 22]
    assert sorted(day) == [1, 15]
    assert sorted(month) == [1, 3]
    assert sorted(weekday) == [1, 2, 3, 4, 5]


def test_a_step_from_a_number_goes_on_to_the_end() -> None:
    assert sorted(cron.parse_cron("5/20 * * * *")[0]) == [5, 25, 45]


@pytest.mark.parametrize("text", ["0 0 29 2 *", "0 0 31 1-2 *", "0 0 31 2 mon", "59 23 31 12 7", "  0   0 * * sun "])
def test_schedules_that_fire(text: str) -> None:
    assert all(cron.parse_cron(text))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("0 0 30 2 *", "'0 0 30 2 *' never fires: no such month has day 30"),
        ("0 0 30 2 */2", "never fires: no such month has day 30"),
        ("0 0 31 4,6,9,11 *", "never fires: no such month has day 31"),
        ("* * * *", "'* * * *' is not a cron schedule: it has 4 fields, not 5"),
        ("", "'' is not a cron schedule: it has 0 fields, not 5"),
        ("@daily", "names such as @daily are not supported"),
        (5, "a schedule is a text"),
        ("60 * * * *", "cron field minute: '60' is not in 0-59"),
        ("* * 0 * *", "cron field day of the month: '0' is not in 1-31"),
        ("* * * foo *", "cron field month: 'foo' is not in 1-12 or jan, feb, mar"),
        ("* * * * 8", "cron field day of the week: '8' is not in 0-7 or sun, mon"),
        ("*/0 * * * *", "cron field minute: the step in '*/0' is 0"),
        ("5-3 * * * *", "cron field minute: '5-3' runs backwards\n  help: write it as two ranges: 5-59,0-3"),
        ("1,,2 * * * *", "cron field minute: '' cannot be read"),
        ("-1 * * * *", "cron field minute: '-1' cannot be read"),
        ("٣ * * * *", "cron field minute: '٣' cannot be read"),
        ("99999999999999999999 * * * *", "is not in 0-59"),
    ],
)
def test_what_is_no_schedule(text: object, message: str) -> None:
    with pytest.raises(BadValue) as error:
        cron.parse_cron(text)
    assert message in str(error.value)


@pytest.mark.parametrize("name", ["UTC", "Europe/Berlin", "America/Argentina/Buenos_Aires"])
def test_zones(name: str) -> None:
    assert cron.check_zone(name) == name


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("Europe/Berln", "no time zone is named 'Europe/Berln'\n  help: Did you mean 'Europe/Berlin'?"),
        ("../../etc/passwd", "no time zone is named '../../etc/passwd'"),
        ("", "no time zone is named ''"),
        (1, "a time zone is a text"),
    ],
)
def test_what_is_no_zone(name: object, message: str) -> None:
    with pytest.raises(BadValue) as error:
        cron.check_zone(name)
    assert str(error.value).startswith(message)
