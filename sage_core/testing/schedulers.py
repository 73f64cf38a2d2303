"""Contract suites for `Ordering` and `Scheduler`: subclass one and set ``make``."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Sequence
from typing import Literal

import msgspec

from sage_core.common.clock import MILLISECOND, SECOND
from sage_core.common.contracts import Ordering, Scheduler
from sage_core.common.policies import KeyedScheduler
from sage_core.common.records import EngineDown, EngineUp, Idle, Progress, Work
from sage_core.testing.fleet import Driven, FakeFleet, drive
from sage_core.testing.subject import made

_CLASSES: Sequence[Literal["interactive", "standard", "batch"]] = ("interactive", "standard", "batch")


def sample_works(count: int, *, seed: int = 1, lanes: int = 3) -> list[Work]:
    """Works of every shape a scheduler meets: three classes, some with deadlines, some tied, some of no known cost."""
    rng = random.Random(seed)
    works = []
    arrival = SECOND
    for number in range(count):
        # A third arrives in the same instant as the one before.
        arrival += rng.choice((0, 1, 3)) * MILLISECOND
        works.append(
            Work(
                id=f"w{number}",
                lane=f"lane{number % lanes}",
                kind=rng.choice(("generate", "embed", "rerank")),
                arrival=arrival,
                deadline=rng.choice((None, arrival + rng.randrange(10, 5_000) * MILLISECOND)),
                tenant=f"tenant{rng.randrange(4)}",
                service_class=rng.choice(_CLASSES),
                priority=rng.randrange(-2, 3),
                tokens_in=rng.randrange(1, 2_000),
                tokens_out=rng.randrange(0, 300),
                cost=rng.choice((0.0, rng.uniform(0.001, 0.02))),
            )
        )
    return works


def sample_fleet(lanes: int = 3) -> FakeFleet:
    """Two engines a lane: one of four sequences, one of two that holds few tokens."""
    engines = {f"lane{lane}": {f"large{lane}": 4, f"small{lane}": 2} for lane in range(lanes)}
    return FakeFleet(engines, tokens={f"small{lane}": 3_000 for lane in range(lanes)})


class OrderingContract:
    """What every `Ordering` keeps: its rank is a finite, pure number, and a queue ordered by it drains.

    Set ``make`` to the class, or to a function that returns an instance.
    """

    make: Callable[..., object]

    def _make(self) -> Ordering:
        policy = made(self)
        assert isinstance(policy, Ordering), f"{type(policy).__name__} has no method rank(work)"
        return policy

    def test_rank_is_a_finite_number(self) -> None:
        ordering = self._make()
        for work in sample_works(300):
            rank = ordering.rank(work)
            assert isinstance(rank, int | float), f"rank is {rank!r}, not a number"
            assert math.isfinite(rank), f"rank of {work} is {rank}"

    def test_rank_is_pure(self) -> None:
        works = sample_works(300)
        ordering = self._make()
        ranks = [ordering.rank(work) for work in works]
        again = [ordering.rank(work) for work in reversed(works)][::-1]
        assert ranks == again, "the rank of a work depends on when it is asked for"
        other = self._make()
        assert ranks == [other.rank(work) for work in works], "two instances rank one work differently"

    def test_a_queue_ordered_by_it_drains(self) -> None:
        works = sample_works(300)
        done = drive(KeyedScheduler(self._make()), sample_fleet(), works)
        assert sorted(done.dispatched) == sorted(work.id for work in works)


class SchedulerContract:
    """What every `Scheduler` keeps under the manager's rules: works are conserved and decisions repeat.

    Set ``make`` to the class, or to a function that returns an instance; an `Ordering` is put in a `KeyedScheduler`.
    """

    make: Callable[..., object]

    def _make(self) -> Scheduler:
        policy = made(self)
        if isinstance(policy, Ordering) and not isinstance(policy, Scheduler):
            policy = KeyedScheduler(policy)
        assert isinstance(policy, Scheduler), f"{type(policy).__name__} has no submit, next and observe"
        return policy

    def _drive(self, count: int, *, cancel: int = 0) -> tuple[list[Work], Driven]:
        works = sample_works(count)
        withdraw = {work.id: work.arrival + cancel * MILLISECOND for work in works[::3]} if cancel else {}
        return works, drive(self._make(), sample_fleet(), works, withdraw=withdraw)

    def test_an_empty_scheduler_is_idle(self) -> None:
        decision = self._make().next(sample_fleet(), SECOND)
        assert isinstance(decision, Idle), f"next without works returned {decision!r}"

    def test_every_work_leaves_exactly_once(self) -> None:
        works, done = self._drive(400, cancel=2)
        left = done.dispatched + done.shed + done.rejected + done.withdrawn
        assert sorted(left) == sorted(work.id for work in works)

    def test_a_withdrawn_work_is_not_dispatched(self) -> None:
        # All in one lane whose one place is taken until long after the last cancellation.
        works = [
            Work(id=f"w{number}", lane="lane0", kind="embed", arrival=SECOND + number, cost=1.0) for number in range(60)
        ]
        gone = {work.id: 2 * SECOND - 1 for work in works[1::2]}
        done = drive(self._make(), FakeFleet({"lane0": {"only": 1}}), works, withdraw=gone)
        assert not set(done.dispatched) & set(done.withdrawn)
        assert done.dispatched or done.rejected, "nothing was dispatched"

    def test_the_same_inputs_give_the_same_decisions(self) -> None:
        _, first = self._drive(400, cancel=2)
        _, second = self._drive(400, cancel=2)
        assert first.decisions == second.decisions

    def test_it_settles_where_nothing_has_room(self) -> None:
        scheduler, full = self._make(), FakeFleet({"lane0": {"none": 0}})
        for work in sample_works(20, lanes=1):
            scheduler.submit(work, full, work.arrival)
        decisions = [scheduler.next(full, 10 * SECOND) for _ in range(22)]
        assert isinstance(decisions[-1], Idle), f"next does not settle on a full fleet: {decisions[-1]!r}"

    def test_a_full_lane_does_not_hold_up_another(self) -> None:
        fleet = FakeFleet({"lane0": {"none": 0}, "lane1": {"free": 1}})
        blocked = [Work(id=f"b{n}", lane="lane0", kind="embed", arrival=SECOND, priority=9) for n in range(30)]
        scheduler = self._make()
        for work in blocked:
            scheduler.submit(work, fleet, SECOND)
        work = Work(id="free", lane="lane1", kind="embed", arrival=2 * SECOND, cost=0.001)
        scheduler.submit(work, fleet, 2 * SECOND)
        now, decisions = 2 * SECOND, []
        for _ in range(64):
            decision = scheduler.next(fleet, now)
            decisions.append(getattr(getattr(decision, "work", None), "id", None))
            if isinstance(decision, Idle):
                if decision.until is None or decision.until > 60 * SECOND:
                    break
                now = decision.until
        assert "free" in decisions, "a work whose engine is free waits behind works of another lane"

    def test_it_bears_events_it_knows_nothing_of(self) -> None:
        scheduler = self._make()
        scheduler.observe(EngineUp(engine="a", lane="lane0"), SECOND)
        scheduler.observe(Progress(engine="stranger", itl=0.02), SECOND)
        scheduler.observe(EngineDown(engine="stranger", lane="nowhere"), SECOND)
        assert isinstance(scheduler.next(sample_fleet(), SECOND), Idle)

    def test_a_work_that_comes_back_is_dispatched_again(self) -> None:
        scheduler, fleet = self._make(), FakeFleet({"lane0": {"only": 1}})
        work = Work(id="again", lane="lane0", kind="embed", arrival=SECOND, cost=0.001)
        assert drive(scheduler, fleet, [work]).dispatched == ["again"]
        scheduler.observe(EngineDown(engine="only", lane="lane0"), 2 * SECOND)
        scheduler.observe(EngineUp(engine="only", lane="lane0"), 3 * SECOND)
        later = msgspec.structs.replace(work, arrival=4 * SECOND)
        assert drive(scheduler, fleet, [later]).dispatched == ["again"]

    def test_ten_thousand_works_drain(self) -> None:
        works, done = self._drive(10_000)
        assert len(done.dispatched) + len(done.shed) + len(done.rejected) == len(works)
