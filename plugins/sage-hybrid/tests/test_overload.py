"""Part *overload*: what happens when more comes than can be served, and how long anything waits at most."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest
from sage_hybrid.overload import GRAIN, PATIENCE, Overload
from sage_hybrid.policy import HybridSchedulingPolicy

from sage_core import SECOND, Capacity, Dispatch, Idle, ServiceClass, Work
from sage_core.testing import Answer, BatchingModel, FakeFleet, Simulation, arrivals

Serve = Callable[..., tuple[list[tuple[str, str]], dict[str, Answer]]]

SMALL = BatchingModel(capacity=Capacity(sequences=4, prefill_tokens=4_096, kv_tokens=40_000))


def work(id: str, service_class: ServiceClass = "batch", *, cost: float = 1.0, tokens: int = 100) -> Work:
    return Work(
        id=id, lane="chat", kind="generate", arrival=0, service_class=service_class, cost=cost, tokens_in=tokens
    )


def test_it_sheds_the_costliest_of_the_lowest_class(serve: Serve) -> None:
    bulk = arrivals("bulk", 30, 20, service_class="batch")
    chat = arrivals("chat", 2, 20, ttft=30.0)
    (whole, kept), (without, full) = (
        serve([*bulk, *chat], [SMALL], shed=30.0),
        serve([*bulk, *chat], [SMALL], overload=False),
    )
    assert whole != without
    shed = [each for each in kept.values() if each.outcome == "shed"]
    assert {each.call.service_class for each in shed} == {"batch"}
    assert all(1.0 <= (each.retry_after or 0.0) <= 3_600.0 for each in shed)
    served = [each.call.tokens_out for each in kept.values() if each.call.service_class == "batch" and each.wait]
    assert sum(each.call.tokens_out for each in shed) / len(shed) > 1.5 * sum(served) / len(served)
    assert all(each.outcome == "done" for each in full.values())


def test_it_sheds_nothing_in_a_burst_that_passes(serve: Serve) -> None:
    _, answers = serve(arrivals("bulk", 24, 1, service_class="batch"), [SMALL], shed=20.0)
    assert {each.outcome for each in answers.values()} == {"done"}
    assert max(each.wait or 0.0 for each in answers.values()) > 5.0


# ---------------------------------------------------------------- the longest wait


@pytest.mark.parametrize("seed", range(8))
def test_nothing_waits_longer_than_the_bound(serve: Serve, seed: int) -> None:
    rng = random.Random(seed)
    bound = rng.choice((2.0, 5.0, 12.0))
    seconds = 3 * bound
    # Some three times what the engines can do, of which people alone take all or half.
    calls = [
        *arrivals("chat", rng.choice((6, 12, 24)), seconds, seed=seed, ttft=rng.choice((0.5, 9.0)), tpot=0.1),
        *arrivals("plain", rng.choice((0.5, 6)), seconds, seed=seed, service_class="standard", tenant="p"),
        *arrivals("bulk", rng.choice((6, 30)), seconds, seed=seed, service_class="batch", tenant="b"),
    ]
    _, answers = serve(calls, [SMALL] * rng.choice((1, 2)), shed=bound, reserve=rng.choice((0, 1)))
    assert len(answers) == len(calls)
    assert {each.outcome for each in answers.values()} == {"done", "shed"}
    for each in answers.values():
        waited = each.wait if each.outcome == "done" else each.total
        assert waited is not None
        assert waited <= bound
        assert each.outcome == "done" or (each.retry_after or 0.0) >= 1.0


def test_batch_is_served_within_the_bound_however_many_people_come(serve: Serve) -> None:
    chat = arrivals("chat", 30, 60, ttft=60.0)
    bulk = arrivals("bulk", 0.5, 60, service_class="batch")
    for options, least in (({"batch": 0.2}, 8), ({"batch": 0.0}, 0)):
        _, answers = serve([*chat, *bulk], [SMALL], shed=15.0, **options)
        done = [
            each
            for call in bulk
            if (each := answers[call.id]).outcome == "done" and call.at + (each.wait or 0.0) < 60.0
        ]
        assert (len(done) > least) is (least > 0)


def test_what_has_waited_so_long_is_given_up_at_that_moment_and_not_long_before() -> None:
    overload = Overload(on=True, defer=1.0, shed=10.0)
    overload.entered(work("first"), 1 * SECOND + 3)
    overload.entered(work("second"), 2 * SECOND)
    alarm = overload.alarm()
    assert alarm == 11 * SECOND
    assert overload.victim(alarm - 1) is None
    shed = overload.victim(alarm)
    assert shed is not None
    assert (shed.work.id, shed.reason, shed.retry_after) == ("first", "it has waited for 10 s", 10.0)
    overload.left(shed.work)
    assert overload.victim(alarm) is None
    assert overload.alarm() == 12 * SECOND
    assert 0 <= 1 * SECOND + 3 + 10 * SECOND - alarm < GRAIN


def test_a_work_that_comes_back_waits_anew() -> None:
    overload = Overload(on=True, defer=1.0, shed=10.0)
    overload.entered(work("w"), SECOND)
    overload.left(work("w"))
    overload.entered(work("w"), 60 * SECOND)
    assert overload.victim(61 * SECOND) is None
    assert overload.alarm() == 70 * SECOND


def test_switched_off_it_gives_nothing_up() -> None:
    overload = Overload(on=False, defer=1.0, shed=10.0)
    overload.entered(work("w"), SECOND)
    assert (overload.alarm(), overload.victim(99 * SECOND), len(overload)) == (None, None, 0)


def test_the_timer_is_set_while_something_runs() -> None:
    policy, fleet = HybridSchedulingPolicy(shed=10.0), FakeFleet({"chat": {"gpu": 1}})
    for number in range(2):
        policy.submit(work(f"w{number}"), fleet, SECOND)
    sent = policy.next(fleet, SECOND)
    assert isinstance(sent, Dispatch)
    fleet.take(sent.work, sent.place)
    assert policy.next(fleet, SECOND) == Idle(until=11 * SECOND)
    # Where nothing runs, what becomes of those who wait is the manager's to say.
    idle = HybridSchedulingPolicy(shed=10.0)
    idle.submit(work("w"), FakeFleet({"chat": {"gpu": 0}}), SECOND)
    assert idle.next(FakeFleet({"chat": {"gpu": 0}}), SECOND) == Idle()


# ---------------------------------------------------------------- early shedding


def overloaded(*, shed: float = 20.0, rate: float = 1.0) -> Overload:
    """Batch of 100 engine-seconds waits, of which `rate` are dispatched each second."""
    overload = Overload(on=True, defer=1.0, shed=shed)
    overload.entered(work("small", cost=1.0), 0)
    overload.entered(work("large", cost=60.0), 0)
    overload.entered(work("middle", cost=39.0), 0)
    for second in range(1, 10):
        overload.sent(work("sent", cost=rate), second * SECOND)
    return overload


def test_the_costliest_goes_when_too_much_has_waited_for_long_enough() -> None:
    overload = overloaded()
    assert overload.victim(9 * SECOND) is None
    overload.sent(work("sent", cost=10.0), 19 * SECOND)
    assert overload.victim(9 * SECOND + PATIENCE - 1) is None
    shed = overload.victim(9 * SECOND + PATIENCE + GRAIN)
    assert shed is not None
    assert shed.work.id == "large"
    assert "more of class batch waits than is served in 20 s, and this is the costliest" in shed.reason
    # What is left, 40 engine-seconds, at one a second.
    assert 35 <= (shed.retry_after or 0.0) <= 50


def test_what_can_be_served_in_time_stays() -> None:
    overload = overloaded(rate=9.0)
    for second in range(10, 19):
        overload.sent(work("sent", cost=9.0), second * SECOND)
        assert overload.victim(second * SECOND) is None


def test_a_rate_that_is_not_known_sheds_nothing_early() -> None:
    overload = overloaded(rate=0.0)
    assert [overload.victim(second * SECOND) for second in (9, 15, 19)] == [None] * 3


def test_people_are_not_given_up_for_batch_that_waits() -> None:
    overload = overloaded()
    overload.entered(work("chat", "interactive", cost=500.0), 0)
    overload.sent(work("sent", "interactive", cost=500.0), 5 * SECOND)
    overload.victim(5 * SECOND)
    shed = overload.victim(5 * SECOND + PATIENCE)
    assert shed is not None
    assert shed.work.service_class == "batch"


def test_where_both_wait_too_long_batch_goes_first() -> None:
    overload = Overload(on=True, defer=1.0, shed=20.0)
    names: tuple[ServiceClass, ...] = ("interactive", "batch")
    for name in names:
        overload.entered(work(name, name, cost=100.0), 0)
        overload.sent(work("sent", name), SECOND)
    assert overload.victim(SECOND) is None
    shed = overload.victim(SECOND + PATIENCE)
    assert shed is not None
    assert shed.work.id == "batch"
    overload.left(shed.work)
    after = overload.victim(SECOND + PATIENCE)
    assert after is not None
    assert after.work.id == "interactive"


def test_a_class_that_comes_after_a_rest_is_judged_by_how_fast_it_goes_from_then_on() -> None:
    overload = Overload(on=True, defer=1.0, shed=60.0)
    overload.entered(work("early"), 0)
    overload.left(work("early"))
    for number in range(200):
        overload.entered(work(f"w{number}"), 600 * SECOND)
    for second in range(20):
        # Five of them a second: all are done within 40 s.
        for number in range(5):
            overload.left(work(f"w{5 * second + number}"))
            overload.sent(work("w"), (600 + second) * SECOND)
        assert overload.victim((600 + second) * SECOND) is None


# ---------------------------------------------------------------- deferring


@pytest.mark.parametrize(("defer", "sent"), [(1.0, False), (9.0, True)])
def test_batch_does_not_slip_in_while_people_wait_too_long(defer: float, sent: bool) -> None:
    policy = HybridSchedulingPolicy(defer=defer, batch=0.0)
    fleet = FakeFleet({"chat": {"gpu": 9}}, tokens={"gpu": 1_000})
    fleet.take(work("runs", tokens=600), fleet._place("gpu"))
    # The fake fleet finishes one engine-second a second: five wait.
    policy.submit(work("large", "interactive", cost=5.0, tokens=900), fleet, SECOND)
    policy.submit(work("bulk", cost=0.1), fleet, SECOND)
    decision = policy.next(fleet, SECOND)
    assert isinstance(decision, Dispatch) is sent
    # What is held back is looked at again, though nothing happens.
    assert sent or decision == Idle(until=2 * SECOND)


def test_a_floor_that_is_due_is_not_deferred() -> None:
    policy = HybridSchedulingPolicy(defer=0.1, batch=1.0)
    fleet = FakeFleet({"chat": {"gpu": 9}}, tokens={"gpu": 1_000})
    fleet.take(work("runs", tokens=600), fleet._place("gpu"))
    policy.submit(work("bulk", cost=1.0), fleet, SECOND)
    policy.submit(work("small", "interactive", cost=2.0, tokens=10), fleet, SECOND)
    policy.submit(work("large", "interactive", cost=5.0, tokens=900), fleet, SECOND)
    found = []
    while isinstance(decision := policy.next(fleet, SECOND), Dispatch):
        fleet.take(decision.work, decision.place)
        found.append((decision.work.id, decision.why))
    assert found == [("small", "interactive, no deadline"), ("bulk", "batch, floor")]


def test_deferring_changes_the_decisions(serve: Serve) -> None:
    large = arrivals("chat", 4, 10, tokens_in=6_000, tokens_out=100, ttft=60.0)
    bulk = arrivals("bulk", 10, 10, tokens_in=100, service_class="batch")
    engines = [BatchingModel(capacity=Capacity(sequences=8, prefill_tokens=16_384, kv_tokens=12_000))]
    (whole, kept), (without, full) = serve([*large, *bulk], engines), serve([*large, *bulk], engines, defer=1e9)
    assert whole != without
    waits = [sum(found[call.id].wait or 0.0 for call in large) for found in (kept, full)]
    assert waits[0] < waits[1]


def test_a_policy_that_takes_over_keeps_the_bound() -> None:
    made = {"": lambda: HybridSchedulingPolicy(overload=False), "bounded": lambda: HybridSchedulingPolicy(shed=5.0)}
    simulation = Simulation(lambda name: made[name](), [SMALL])
    simulation.submit(arrivals("bulk", 10, 8, service_class="batch"))
    simulation.switch(6.0, "bounded")
    answers = simulation.run()
    assert {each.outcome for each in answers} == {"done", "shed"}
    assert all(each.call.at + (each.total or 0.0) <= 13.0 for each in answers if each.outcome == "shed")
