"""Contract suite for `TriggerKind`: subclass it and set ``make``, ``specs`` and ``wrong``."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta, timezone, tzinfo

import pytest

from sage_core.common.contracts import TriggerKind
from sage_core.common.errors import BadValue
from sage_core.testing.subject import made

#: Moments to ask about: before, at and after a full minute, around a new year, on a leap day.
_MOMENTS = tuple(
    int(moment.timestamp() * 1000) + beside
    for moment in (
        datetime(2026, 1, 1, tzinfo=UTC),
        datetime(2026, 6, 30, 23, 59, tzinfo=UTC),
        datetime(2028, 2, 29, 12, 0, tzinfo=UTC),
    )
    for beside in (-1, 0, 1, 29_999)
)
_ZONES: tuple[tzinfo, ...] = (UTC, timezone(timedelta(hours=5, minutes=30)))


class TriggerContract:
    """What every `TriggerKind` keeps: later than asked, none left out, the same whoever asks and in whatever order.

    Set ``specs`` to declarations that fire at least twice a year, and ``wrong`` to some that it must refuse.
    """

    make: Callable[..., object]
    specs: Sequence[Mapping[str, object]]
    wrong: Sequence[Mapping[str, object]]

    def _make(self) -> TriggerKind:
        kind = made(self)
        assert isinstance(kind, TriggerKind), f"{type(kind).__name__} has no method next_fire"
        return kind

    def _asked(self) -> Iterator[tuple[Mapping[str, object], int, tzinfo]]:
        assert self.specs, "set `specs`"
        return ((spec, after, zone) for spec in self.specs for zone in _ZONES for after in _MOMENTS)

    def test_a_fire_time_is_a_later_number_of_ms(self) -> None:
        kind = self._make()
        for spec, after, zone in self._asked():
            found = kind.next_fire(spec, after, zone)
            assert type(found) is int, f"{spec} after {after}: {found!r} is not a whole number of milliseconds"
            assert found > after, f"{spec}: {found} is not later than {after}"

    def test_no_fire_time_is_left_out(self) -> None:
        kind = self._make()
        for spec, after, zone in self._asked():
            found = kind.next_fire(spec, after, zone)
            assert found is not None
            for between in (found - 1, (after + found) // 2):
                again = kind.next_fire(spec, between, zone)
                assert again == found, f"{spec}: asked at {after} the next is {found}, at {between} it is {again}"

    def test_it_is_pure(self) -> None:
        asked, kind = list(self._asked()), self._make()
        first = [kind.next_fire(*each) for each in asked]
        again = [kind.next_fire(*each) for each in reversed(asked)][::-1]
        assert first == again, "the answer depends on earlier questions"
        assert first == [self._make().next_fire(*each) for each in asked], "two instances answer differently"

    def test_it_does_not_change_the_spec(self) -> None:
        kind = self._make()
        for spec, after, zone in self._asked():
            before = copy.deepcopy(dict(spec))
            kind.next_fire(spec, after, zone)
            assert dict(spec) == before, "next_fire changed the mapping it was given"

    def test_a_spec_that_says_no_time_is_refused(self) -> None:
        assert self.wrong, "set `wrong`"
        for spec in self.wrong:
            with pytest.raises(BadValue):
                self._make().next_fire(spec, _MOMENTS[0], UTC)
