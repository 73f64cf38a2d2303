"""`Ordering` and `Scheduler`: the default and a second implementation pass, wrong ones are found out."""

from __future__ import annotations

from collections import deque

import pytest

from sage_core import Decision, Dispatch, Event, Fleet, Idle, KeyedScheduler, Queued, Shed, Verdict, Withdrawn, Work
from sage_core.builtins import Fifo
from sage_core.testing import OrderingContract, SchedulerContract
from tests.contract.suites import assert_fails


class ShortestFirst:
    """A second `Ordering`."""

    def rank(self, work: Work) -> float:
        return work.cost


class TestShortestFirst(OrderingContract):
    make = ShortestFirst


class TestFifoScheduler(SchedulerContract):
    make = Fifo


class TestKeyedWithoutLookAhead(SchedulerContract):
    def make(self) -> KeyedScheduler:
        return KeyedScheduler(ShortestFirst(), look_ahead=1)


class Turns:
    """A second `Scheduler`, of another build: a deque a lane, lanes in turn; sheds what waits for 30 s."""

    def __init__(self) -> None:
        self.lanes: dict[str, deque[Work]] = {}

    def submit(self, work: Work, fleet: Fleet, now: int) -> Verdict:
        self.lanes.setdefault(work.lane, deque()).append(work)
        return Queued()

    def next(self, fleet: Fleet, now: int) -> Decision:
        for lane in list(self.lanes):
            queue = self.lanes[lane]
            if queue and now - queue[0].arrival > 30_000_000_000:
                return Shed(work=queue.popleft(), reason="waited 30 s")
            place = fleet.pick(queue[0]) if queue and fleet.room(lane) else None
            if place is not None:
                self.lanes[lane] = self.lanes.pop(lane)
                return Dispatch(work=queue.popleft(), place=place)
        return Idle()

    def observe(self, event: Event, now: int) -> None:
        if isinstance(event, Withdrawn):
            self.lanes[event.work.lane] = deque(w for w in self.lanes[event.work.lane] if w.id != event.work.id)


class TestTurns(SchedulerContract):
    make = Turns


class Forgetful(KeyedScheduler):
    """Loses every tenth work."""

    def submit(self, work: Work, fleet: Fleet, now: int) -> Verdict:
        return Queued() if work.id.endswith("9") else super().submit(work, fleet, now)


class Deaf(KeyedScheduler):
    """Dispatches what was withdrawn."""

    def observe(self, event: Event, now: int) -> None:
        pass


class Doubled(KeyedScheduler):
    """Dispatches a work twice."""

    last: Decision = Idle()

    def next(self, fleet: Fleet, now: int) -> Decision:
        decision, self.last = self.last, Idle()
        if isinstance(decision, Dispatch):
            return decision
        self.last = super().next(fleet, now)
        return self.last


class Overbooked(KeyedScheduler):
    """Sends everything to one engine, full or not."""

    def next(self, fleet: Fleet, now: int) -> Decision:
        decision = super().next(fleet, now)
        if isinstance(decision, Dispatch):
            return Dispatch(work=decision.work, place=type(decision.place)(engine="large0"))
        return decision


class Sleepless(KeyedScheduler):
    """Asks to be woken in the past."""

    def next(self, fleet: Fleet, now: int) -> Decision:
        decision = super().next(fleet, now)
        return Idle(until=now) if isinstance(decision, Idle) else decision


class OneHeap(KeyedScheduler):
    """One queue over all lanes: a head without room blocks the rest."""

    def __init__(self) -> None:
        super().__init__(Fifo())
        self.queue: deque[Work] = deque()

    def submit(self, work: Work, fleet: Fleet, now: int) -> Verdict:
        self.queue.append(work)
        return Queued()

    def next(self, fleet: Fleet, now: int) -> Decision:
        place = fleet.pick(self.queue[0]) if self.queue else None
        return Idle() if place is None else Dispatch(work=self.queue.popleft(), place=place)

    def observe(self, event: Event, now: int) -> None:
        if isinstance(event, Withdrawn):
            self.queue = deque(work for work in self.queue if work.id != event.work.id)


class Changing:
    """Ranks by how often it was asked."""

    asked = 0

    def rank(self, work: Work) -> float:
        self.asked += 1
        return -self.asked


class NotANumber:
    def rank(self, work: Work) -> float:
        return float("nan") if work.deadline is None else work.deadline


@pytest.mark.parametrize(
    ("policy", "test", "message"),
    [
        (Forgetful, "test_every_work_leaves_exactly_once", "starve"),
        (Deaf, "test_a_withdrawn_work_is_not_dispatched", "not queued"),
        (Doubled, "test_every_work_leaves_exactly_once", "not queued"),
        (Overbooked, "test_every_work_leaves_exactly_once", "not open to it"),
        (Sleepless, "test_every_work_leaves_exactly_once", "not after now"),
    ],
)
def test_a_wrong_scheduler_fails(policy: type[KeyedScheduler], test: str, message: str) -> None:
    assert_fails(SchedulerContract, test, message, make=staticmethod(lambda: policy(Fifo())))


def test_one_queue_over_all_lanes_fails() -> None:
    test, message = "test_a_full_lane_does_not_hold_up_another", "waits behind works of another lane"
    assert_fails(SchedulerContract, test, message, make=OneHeap)


def test_a_scheduler_that_counts_on_its_own_randomness_fails() -> None:
    calls = iter(range(10))

    class Moody(KeyedScheduler):
        def __init__(self) -> None:
            super().__init__(Fifo() if next(calls) % 2 else ShortestFirst())

    assert_fails(SchedulerContract, "test_the_same_inputs_give_the_same_decisions", "^assert ", make=Moody)


@pytest.mark.parametrize(
    ("ordering", "test", "message"),
    [
        (Changing, "test_rank_is_pure", "depends on when"),
        (NotANumber, "test_rank_is_a_finite_number", "nan"),
        (Turns, "test_rank_is_pure", "no method rank"),
    ],
)
def test_a_wrong_ordering_fails(ordering: type, test: str, message: str) -> None:
    assert_fails(OrderingContract, test, message, make=ordering)


def test_a_suite_without_a_subject_says_what_to_set() -> None:
    assert_fails(SchedulerContract, "test_an_empty_scheduler_is_idle", "Suite must set `make`")
