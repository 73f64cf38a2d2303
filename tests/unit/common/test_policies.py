"""KeyedScheduler: order, look-ahead, withdrawal, and how policies are made by name."""

from __future__ import annotations

import pytest

from sage_core import Dispatch, Idle, PluginError, Work
from sage_core.builtins import Fifo, default_host
from sage_core.common.errors import ConfigError, UnknownName
from sage_core.common.policies import LOOK_AHEAD, KeyedScheduler, create, ordering_named, prefer_low, scheduler_named
from sage_core.common.records import Decision, Event, Verdict, Withdrawn
from sage_core.common.registry import Registry
from sage_core.testing import FakeFleet


class Cheapest:
    def rank(self, work: Work) -> float:
        return work.cost


class Constant:
    def __init__(self, value: float = 0.0) -> None:
        self.value = value

    def rank(self, work: Work) -> float:
        return self.value


class Seeded:
    """A scheduler that cannot rank, with a seed."""

    def __init__(self, *, seed: int) -> None:
        self.seed = seed

    def submit(self, work: Work, fleet: object, now: int) -> Verdict:
        raise NotImplementedError

    def next(self, fleet: object, now: int) -> Decision:
        raise NotImplementedError

    def observe(self, event: Event, now: int) -> None:
        raise NotImplementedError


class Odd:
    """Neither."""


def work(name: str, *, lane: str = "a", arrival: int = 0, cost: float = 0.0, tokens: int = 0) -> Work:
    return Work(id=name, lane=lane, kind="embed", arrival=arrival, cost=cost, tokens_in=tokens)


def order(scheduler: KeyedScheduler, fleet: FakeFleet) -> list[str]:
    """Dispatch without ever giving a credit back."""
    names = []
    while isinstance(decision := scheduler.next(fleet, 0), Dispatch):
        fleet.take(decision.work, decision.place)
        names.append(decision.work.id)
    return names


def queue(scheduler: KeyedScheduler, fleet: FakeFleet, *works: Work) -> None:
    for each in works:
        scheduler.submit(each, fleet, 0)


def test_the_smallest_rank_goes_first() -> None:
    scheduler, fleet = KeyedScheduler(Cheapest()), FakeFleet({"a": {"e": 9}})
    queue(scheduler, fleet, work("x", cost=3), work("y", cost=1), work("z", cost=2))
    assert order(scheduler, fleet) == ["y", "z", "x"]


def test_ties_fall_by_arrival_then_by_submission() -> None:
    scheduler, fleet = KeyedScheduler(Constant()), FakeFleet({"a": {"e": 9}})
    queue(scheduler, fleet, work("late", arrival=5), work("b", arrival=3), work("a", arrival=3))
    assert order(scheduler, fleet) == ["b", "a", "late"]


def test_fifo_tells_epoch_nanoseconds_apart() -> None:
    epoch = 1_790_000_000_000_000_000
    scheduler, fleet = KeyedScheduler(Fifo()), FakeFleet({"a": {"e": 9}})
    queue(scheduler, fleet, work("second", arrival=epoch + 1), work("first", arrival=epoch))
    assert order(scheduler, fleet) == ["first", "second"]


def test_lanes_without_room_are_skipped() -> None:
    scheduler, fleet = KeyedScheduler(Fifo()), FakeFleet({"full": {"e": 0}, "a": {"f": 1}})
    queue(scheduler, fleet, work("stuck", lane="full"), work("goes", arrival=9))
    assert order(scheduler, fleet) == ["goes"]
    assert order(scheduler, FakeFleet({"full": {"e": 1}})) == ["stuck"]


def test_the_lane_with_the_smallest_head_goes_first() -> None:
    scheduler, fleet = KeyedScheduler(Fifo()), FakeFleet({"a": {"e": 9}, "b": {"f": 9}})
    queue(scheduler, fleet, work("1", lane="a", arrival=3), work("2", lane="b", arrival=1), work("3", arrival=2))
    assert order(scheduler, fleet) == ["2", "3", "1"]


def test_heads_that_fit_nowhere_are_passed_and_keep_their_rank() -> None:
    fleet = FakeFleet({"a": {"e": 9}}, tokens={"e": 100})
    scheduler = KeyedScheduler(Fifo())
    queue(scheduler, fleet, work("huge", tokens=500), work("small", tokens=50, arrival=1))
    assert order(scheduler, fleet) == ["small"]
    assert order(scheduler, FakeFleet({"a": {"e": 9}})) == ["huge"]


def test_the_look_ahead_is_bounded() -> None:
    fleet = FakeFleet({"a": {"e": 99}}, tokens={"e": 100})
    scheduler = KeyedScheduler(Fifo())
    queue(scheduler, fleet, *(work(f"huge{n}", tokens=500) for n in range(LOOK_AHEAD)))
    queue(scheduler, fleet, work("small", tokens=1, arrival=1))
    assert scheduler.next(fleet, 0) == Idle()
    scheduler.observe(Withdrawn(work=work("huge0")), 0)
    assert order(scheduler, fleet) == ["small"]


def test_a_work_that_is_withdrawn_twice_leaves_once() -> None:
    scheduler, fleet = KeyedScheduler(Fifo()), FakeFleet({"a": {"e": 9}})
    queue(scheduler, fleet, work("x"), work("y"))
    scheduler.observe(Withdrawn(work=work("x")), 0)
    scheduler.observe(Withdrawn(work=work("x")), 0)
    assert order(scheduler, fleet) == ["y"]


def test_a_flood_of_withdrawals_leaves_no_dead_entries_behind() -> None:
    scheduler, fleet = KeyedScheduler(Fifo()), FakeFleet({"a": {"e": 2_000}})
    works = [work(f"w{n}", arrival=n) for n in range(1_000)]
    queue(scheduler, fleet, *works)
    for each in works[:990]:
        scheduler.observe(Withdrawn(work=each), 0)
    assert scheduler._lanes["a"].size <= 2 * 10 + 16
    assert order(scheduler, fleet) == [each.id for each in works[990:]]
    assert not scheduler._lanes


def test_a_second_submission_takes_the_place_of_the_first() -> None:
    scheduler, fleet = KeyedScheduler(Cheapest()), FakeFleet({"a": {"e": 9}})
    queue(scheduler, fleet, work("x", cost=1), work("y", cost=2), work("x", cost=3))
    assert order(scheduler, fleet) == ["y", "x"]


def test_a_withdrawn_work_may_come_back() -> None:
    scheduler, fleet = KeyedScheduler(Fifo()), FakeFleet({"a": {"e": 9}})
    queue(scheduler, fleet, work("x"), work("y"))
    scheduler.observe(Withdrawn(work=work("x")), 0)
    queue(scheduler, fleet, work("x", arrival=7))
    assert order(scheduler, fleet) == ["y", "x"]


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_rank_that_cannot_be_ordered_is_refused(value: float) -> None:
    scheduler, fleet = KeyedScheduler(Constant(value)), FakeFleet({"a": {"e": 9}})
    with pytest.raises(PluginError) as caught:
        scheduler.submit(work("x"), fleet, 0)
    assert str(caught.value) == f"plugin 'Constant': rank of work 'x' is {value}\n  help: a rank is a finite number"
    assert order(scheduler, fleet) == []


def registry(**entries: str) -> Registry:
    made = Registry("scheduler")
    made.add("test", {name: f"{__name__}:{target}" for name, target in entries.items()})
    return made


def test_an_ordering_becomes_a_scheduler() -> None:
    scheduler = scheduler_named("fifo", default_host({}).schedulers)
    assert isinstance(scheduler, KeyedScheduler)
    assert isinstance(scheduler.ordering, Fifo)


def test_a_scheduler_receives_the_seed() -> None:
    scheduler = scheduler_named("seeded", registry(seeded="Seeded"), seed=42)
    assert isinstance(scheduler, Seeded)
    assert scheduler.seed == 42


def test_something_else_is_no_scheduler() -> None:
    message = "neither an Ordering nor a Scheduler\n  help: give it the method rank, or submit, next and observe"
    with pytest.raises(PluginError, match=f"plugin 'test': scheduler 'odd' is {message}"):
        scheduler_named("odd", registry(odd="Odd"))


def test_a_policy_that_wants_arguments_is_named() -> None:
    with pytest.raises(PluginError) as caught:
        scheduler_named("needy", registry(needy="FakeFleet"))
    assert str(caught.value).startswith("plugin 'FakeFleet': cannot be made: TypeError: ")
    assert str(caught.value).endswith(
        "help: a policy is made with keyword options that all have defaults, and an optional `seed`"
    )


def test_a_misspelt_scheduler_is_suggested() -> None:
    with pytest.raises(UnknownName, match=r"No scheduler is named 'fifi'\. Did you mean 'fifo'\?"):
        scheduler_named("fifi", default_host({}).schedulers)


def test_jobs_take_only_what_ranks() -> None:
    with pytest.raises(ConfigError) as caught:
        ordering_named("seeded", registry(seeded="Seeded", cheap="Cheapest", constant="Constant"))
    assert str(caught.value) == (
        "[scheduler] jobs: 'seeded' decides at run time and cannot rank jobs, whose order is fixed when they are "
        "enqueued\n  help: these can: cheap, constant"
    )
    assert ordering_named("cheap", registry(cheap="Cheapest")).rank(work("x", cost=2.0)) == 2.0


def test_a_switch_is_on_or_off_and_nothing_else() -> None:
    class Switched:
        def __init__(self, *, release: bool = True, depth: int = 4) -> None:
            self.release = release

        def rank(self, work: Work) -> float:
            return 0.0

    assert create(Switched, options={"release": False}).release is False  # type: ignore[attr-defined]
    with pytest.raises(ConfigError, match=r"option 'release' is 'perhaps'\n  help: write on or off"):
        create(Switched, options={"release": "perhaps"})
    with pytest.raises(ConfigError, match="option 'release' is 0"):
        create(Switched, options={"release": 0})


def test_less_is_better() -> None:
    assert prefer_low({"a": 1.0, "b": 3.0, "c": 2.0}) == {"a": 1.0, "b": 0.0, "c": 0.5}
    assert prefer_low({"a": 4.0, "b": 4.0}) == {"a": 1.0, "b": 1.0}
    assert prefer_low({}) == {}
