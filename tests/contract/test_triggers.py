"""Trigger kinds: a second one passes the suite that the cron plugin passes, wrong ones are found out."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, tzinfo
from zoneinfo import ZoneInfo

import pytest
from sage_cron.trigger import Cron

from sage_core import BadValue
from sage_core.kernel.runtime.triggers import Kind, due
from sage_core.testing import TriggerContract
from tests.contract.suites import assert_fails

SPECS = ({"every_ms": 60_000}, {"every_ms": 7})
WRONG: tuple[dict[str, object], ...] = ({}, {"every_ms": 0})


class Every:
    """A second `TriggerKind`: multiples of an interval since the epoch."""

    def next_fire(self, spec: Mapping[str, object], after: int, zone: tzinfo) -> int | None:
        return (after // period(spec) + 1) * period(spec)


def period(spec: Mapping[str, object]) -> int:
    every = spec.get("every_ms")
    if not isinstance(every, int) or every < 1:
        raise BadValue("an interval is a number of milliseconds above 0", "")
    return every


class TestEvery(TriggerContract):
    make = Every
    specs = SPECS
    wrong = WRONG


class Inclusive(Every):
    def next_fire(self, spec: Mapping[str, object], after: int, zone: tzinfo) -> int | None:
        return -(-after // period(spec)) * period(spec)


class FromNow(Every):
    """Counts from the moment it is asked about."""

    def next_fire(self, spec: Mapping[str, object], after: int, zone: tzinfo) -> int | None:
        return after + period(spec)


class Seconds(Every):
    def next_fire(self, spec: Mapping[str, object], after: int, zone: tzinfo) -> int | None:
        return super().next_fire(spec, after, zone) / 1  # type: ignore[operator, return-value]


class Stateful(Every):
    def __init__(self) -> None:
        self.asked = 0

    def next_fire(self, spec: Mapping[str, object], after: int, zone: tzinfo) -> int | None:
        self.asked += 1
        return (after // period(spec) + 1 + self.asked // 10) * period(spec)


class Marks(Every):
    def next_fire(self, spec: Mapping[str, object], after: int, zone: tzinfo) -> int | None:
        spec["asked"] = True  # type: ignore[index]
        return super().next_fire(spec, after, zone)


class Lenient(Every):
    def next_fire(self, spec: Mapping[str, object], after: int, zone: tzinfo) -> int | None:
        try:
            return super().next_fire(spec, after, zone)
        except BadValue:
            return None


class Ends(Every):
    def next_fire(self, spec: Mapping[str, object], after: int, zone: tzinfo) -> int | None:
        return None


@pytest.mark.parametrize(
    ("make", "test", "message"),
    [
        (Inclusive, "test_a_fire_time_is_a_later_number_of_ms", "is not later than"),
        (Seconds, "test_a_fire_time_is_a_later_number_of_ms", "is not a whole number"),
        (Ends, "test_a_fire_time_is_a_later_number_of_ms", "None is not a whole number"),
        (FromNow, "test_no_fire_time_is_left_out", "the next is"),
        (Stateful, "test_it_is_pure", "depends on earlier questions"),
        (Marks, "test_it_does_not_change_the_spec", "changed the mapping"),
        (object, "test_it_is_pure", "no method next_fire"),
    ],
)
def test_a_wrong_trigger_fails_the_suite(make: type, test: str, message: str) -> None:
    specs = [dict(spec) for spec in SPECS]
    assert_fails(TriggerContract, test, message, make=make, specs=specs, wrong=WRONG)


def test_one_that_takes_any_spec_fails_the_suite() -> None:
    suite = type("Suite", (TriggerContract,), {"make": Lenient, "specs": SPECS, "wrong": WRONG})()
    with pytest.raises(pytest.fail.Exception, match="DID NOT RAISE"):
        suite.test_a_spec_that_says_no_time_is_refused()


def test_a_suite_without_examples_says_so() -> None:
    assert_fails(TriggerContract, "test_it_is_pure", "set `specs`", make=Every, specs=(), wrong=WRONG)
    assert_fails(
        TriggerContract, "test_a_spec_that_says_no_time_is_refused", "set `wrong`", make=Every, specs=SPECS, wrong=()
    )


def ms(moment: str) -> int:
    return int(datetime.fromisoformat(f"{moment}:00+00:00").timestamp() * 1000)


@pytest.mark.parametrize(
    ("schedule", "asleep", "awake", "passed"),
    [
        # At two on 29 March the clocks of Berlin go to three, on 25 October at three to two.
        (
            "30 2 * * *",
            "2026-03-27T12:00",
            "2026-03-31T12:00",
            ["2026-03-28T01:30", "2026-03-29T01:00", "2026-03-30T00:30", "2026-03-31T00:30"],
        ),
        (
            "30 2 * * *",
            "2026-10-24T00:00",
            "2026-10-26T12:00",
            ["2026-10-24T00:30", "2026-10-25T00:30", "2026-10-26T01:30"],
        ),
        (
            "0 * * * *",
            "2026-03-28T23:30",
            "2026-03-29T02:10",
            ["2026-03-29T00:00", "2026-03-29T01:00", "2026-03-29T02:00"],
        ),
        (
            "0 * * * *",
            "2026-10-24T23:30",
            "2026-10-25T02:10",
            ["2026-10-25T00:00", "2026-10-25T01:00", "2026-10-25T02:00"],
        ),
    ],
)
def test_what_a_long_sleep_over_a_change_of_clocks_has_passed_over(
    schedule: str, asleep: str, awake: str, passed: list[str]
) -> None:
    moments, now = [ms(moment) for moment in passed], ms(awake)

    def told(catchup: str) -> list[tuple[int, str]]:
        spec = {"schedule": schedule, "catchup": catchup}
        kind = Kind(trigger=Cron(), spec=spec, zone=ZoneInfo("Europe/Berlin"))
        first = kind.after(ms(asleep))
        assert first == moments[0]
        found, following = due(kind, first, now, limit=99)
        assert following == kind.after(now)
        return [(each.at, each.act) for each in found]

    assert told("all") == [(moment, "fire") for moment in moments]
    assert told("last") == [(moments[0], "miss"), (moments[-1], "fire")]
    assert told("none") == [(moments[0], "miss"), (moments[-1], "miss")]
