"""Trigger kinds: a second one passes the suite that the cron plugin passes, wrong ones are found out."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import tzinfo

import pytest

from sage_core import BadValue
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
