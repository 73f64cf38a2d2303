"""Tests of sage_core.kernel.runtime.triggers: which times are due, and what is done about those that passed."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, tzinfo
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from sage_core import hookimpl
from sage_core.builtins import default_host
from sage_core.common.errors import BadValue, PluginError, UsageError
from sage_core.kernel.runtime.triggers import GRACE_MS, Due, Kind, due, kind_of, times
from tests.unit.kernel.runtime.schedule_operators import MINUTE, Multiples, Triggers

SPEC = {"schedule": "*/5 * * * *"}
STEP = 5 * MINUTE
#: A moment that is a fire time.
AT = 1_000 * STEP


class Counted:
    """Counts how often it is asked."""

    def __init__(self) -> None:
        self.asked = 0

    def next_fire(self, spec: Mapping[str, object], after: int, zone: tzinfo) -> int | None:
        self.asked += 1
        return Multiples().next_fire(spec, after, zone)


class Ends:
    """Fires at 10, 20 and 30, and never again."""

    def next_fire(self, spec: Mapping[str, object], after: int, zone: tzinfo) -> int | None:
        return next((at for at in (10, 20, 30) if at > after), None)


def kind(catchup: str = "none", trigger: object = None) -> Kind:
    return Kind(trigger=trigger or Multiples(), spec={**SPEC, "catchup": catchup}, zone=UTC)  # type: ignore[arg-type]


@pytest.mark.parametrize("catchup", ["none", "last", "all"])
def test_one_time_that_has_come_fires(catchup: str) -> None:
    assert due(kind(catchup), AT, AT + 1, limit=9) == ([Due(at=AT, act="fire")], AT + STEP)


def test_all_times_that_passed_fire_up_to_a_limit() -> None:
    found, following = due(kind("all"), AT, AT + 4 * STEP, limit=3)
    assert found == [Due(at=AT + n * STEP, act="fire") for n in range(3)]
    assert following == AT + 3 * STEP


@pytest.mark.parametrize("catchup", ["none", "last"])
def test_only_the_latest_of_many_fires_and_the_first_is_named_as_missed(catchup: str) -> None:
    found, following = due(kind(catchup), AT, AT + 7 * STEP + 1, limit=1)
    assert found == [Due(at=AT, act="miss"), Due(at=AT + 7 * STEP, act="fire")]
    assert following == AT + 8 * STEP


def test_what_is_late_is_missed_where_nothing_is_caught_up() -> None:
    rare = {"schedule": "*/30 * * * *", "catchup": "none"}
    seldom = Kind(trigger=Multiples(), spec=rare, zone=UTC)
    at = 30 * MINUTE * 7
    assert due(seldom, at, at + GRACE_MS, limit=9)[0] == [Due(at=at, act="fire")]
    assert due(seldom, at, at + GRACE_MS + 1, limit=9)[0] == [Due(at=at, act="miss")]
    last = Kind(trigger=Multiples(), spec={**rare, "catchup": "last"}, zone=UTC)
    assert due(last, at, at + GRACE_MS + 1, limit=9)[0] == [Due(at=at, act="fire")]


@pytest.mark.parametrize("passed", [1, 2, 3, 11, 288, 1_000, 105_120])
def test_the_latest_of_a_year_is_found_without_stepping_through_it(passed: int) -> None:
    trigger = Counted()
    found, following = due(kind("last", trigger), AT, AT + passed * STEP + STEP // 2, limit=9)
    assert found[-1] == Due(at=AT + passed * STEP, act="fire")
    assert following == AT + (passed + 1) * STEP
    assert trigger.asked < 20


def test_a_trigger_that_ends() -> None:
    assert due(kind("all", Ends()), 10, 40, limit=9) == ([Due(at=at, act="fire") for at in (10, 20, 30)], None)
    assert due(kind("last", Ends()), 10, 400_000, limit=9)[1] is None
    assert Kind(trigger=Ends(), spec={}, zone=UTC).after(30) is None


def test_the_time_that_was_put_down_counts_even_if_the_trigger_does_not_have_it() -> None:
    found, _ = due(kind("all"), AT + 1, AT + STEP, limit=9)
    assert found == [Due(at=AT + 1, act="fire"), Due(at=AT + STEP, act="fire")]


def test_times_between_two_moments_include_both() -> None:
    assert times(kind(), AT, AT + 2 * STEP, limit=9) == [AT, AT + STEP, AT + 2 * STEP]
    assert times(kind(), AT + 1, AT + 2 * STEP - 1, limit=9) == [AT + STEP]
    assert times(kind(), AT, AT + 2 * STEP, limit=2) == [AT, AT + STEP]


def test_a_kind_is_made_in_the_zone_of_its_spec() -> None:
    host = default_host({"triggers": Triggers()})
    assert kind_of(host, "cron", SPEC).zone is UTC
    assert kind_of(host, "cron", {**SPEC, "timezone": "Europe/Berlin"}).zone == ZoneInfo("Europe/Berlin")
    assert kind_of(host, "cron", SPEC).after(AT) == AT + STEP
    with pytest.raises(BadValue, match=r"no time zone is named 'Europe/Berln'\n  help: Did you mean 'Europe/Berlin'"):
        kind_of(host, "cron", {**SPEC, "timezone": "Europe/Berln"})


def test_a_missing_plugin_is_named() -> None:
    with pytest.raises(UsageError) as error:
        kind_of(default_host({}), "cron", SPEC)
    assert str(error.value) == "No plugin fires 'cron' triggers.\n  help: sage plugins install sage-cron"


def test_a_plugin_that_cannot_be_loaded_is_named() -> None:
    with pytest.raises(UsageError, match=r"No plugin fires 'cron' triggers. Not loaded: cron \(.*\)\.\n  help: "):
        kind_of(default_host({"cron": object()}), "cron", SPEC)


class Raises:
    def next_fire(self, spec: Mapping[str, object], after: int, zone: tzinfo) -> int | None:
        raise KeyError("schedule")


class Stays:
    def next_fire(self, spec: Mapping[str, object], after: int, zone: tzinfo) -> int | None:
        return after


@pytest.mark.parametrize(
    ("trigger", "message"),
    [
        (Raises(), "plugin 'theirs': its trigger raised KeyError: 'schedule'"),
        (Stays(), "plugin 'theirs': its trigger fires at 5, which is not later than 5"),
    ],
)
def test_a_trigger_that_breaks_its_contract_is_its_plugins_fault(trigger: Any, message: str) -> None:
    with pytest.raises(PluginError) as error:
        times(Kind(trigger=trigger, spec={}, zone=UTC, plugin="theirs"), 6, 100, limit=9)
    assert str(error.value) == message


class NoTriggers:
    @hookimpl
    def sage_triggers(self) -> Mapping[str, str]:
        return {"cron": f"{__name__}:MINUTE"}


def test_an_entry_that_is_no_kind_of_trigger_is_its_plugins_fault() -> None:
    with pytest.raises(PluginError, match="plugin 'wrong': trigger 'cron' is not a class that is a TriggerKind"):
        kind_of(default_host({"wrong": NoTriggers()}), "cron", SPEC)
