"""The loop of one lane in which the parts decide."""

from __future__ import annotations

from sage_hybrid.lane import LOOK_AHEAD, PURGED_AT_ONCE
from sage_hybrid.policy import HybridSchedulingPolicy

from sage_core import SECOND, Dispatch, Idle, Place, Work
from sage_core.testing import FakeFleet


def work(id: str, *, at: int = SECOND, deadline: int | None = None, tenant: str = "a", tokens: int = 0) -> Work:
    kind = "generate" if tokens else "embed"
    return Work(
        id=id, lane="chat", kind=kind, arrival=at, deadline=deadline, tenant=tenant, tokens_in=tokens, cost=0.01
    )


def test_what_fits_nowhere_is_passed_and_keeps_its_place() -> None:
    fleet = FakeFleet({"chat": {"gpu": 9}}, tokens={"gpu": 1_000})
    policy = HybridSchedulingPolicy()
    sizes = {"runs": 600, "large0": 900, "large1": 800, "large2": 700, "small": 300}
    for n, (id, tokens) in enumerate(sizes.items()):
        policy.submit(work(id, at=SECOND + n, tenant=id[:5], tokens=tokens), fleet, SECOND + n)
    sent = []
    for done in ("", "", "small", "runs", "large0", "large1"):
        if done:
            fleet.give_back(work(done))
        decision = policy.next(fleet, 2 * SECOND)
        if isinstance(decision, Dispatch):
            fleet.take(decision.work, decision.place)
            sent.append(decision.work.id)
    assert sent == ["runs", "small", "large0", "large1", "large2"]


def test_a_bounded_number_is_passed() -> None:
    fleet = FakeFleet({"chat": {"gpu": 9}}, tokens={"gpu": 1_000})
    policy = HybridSchedulingPolicy()
    for n in range(LOOK_AHEAD):
        policy.submit(work(f"large{n}", tokens=2_000), fleet, SECOND)
    policy.submit(work("small", at=2 * SECOND, tokens=100), fleet, 2 * SECOND)
    assert policy.next(fleet, 2 * SECOND) == Idle()


def test_one_call_puts_back_a_bounded_number_of_doomed_works() -> None:
    policy, fleet = HybridSchedulingPolicy(), FakeFleet({"chat": {"gpu": 1}})
    for n in range(200):
        policy.submit(work(f"w{n}", deadline=2 * SECOND), fleet, SECOND)
    decision = policy.next(fleet, 9 * SECOND)
    assert isinstance(decision, Dispatch)
    assert decision.work.id == f"w{PURGED_AT_ONCE}"
    assert len(policy._lanes["chat"]._late) == PURGED_AT_ONCE


def test_every_dispatch_says_what_it_was() -> None:
    policy, fleet = HybridSchedulingPolicy(), FakeFleet({"chat": {"gpu": 9}})
    for id, deadline in (("late", SECOND // 2), ("plain", None), ("due", 5 * SECOND)):
        policy.submit(work(id, deadline=deadline), fleet, SECOND)
    found = {}
    while isinstance(decision := policy.next(fleet, SECOND), Dispatch):
        fleet.take(decision.work, decision.place)
        found[decision.work.id] = decision.why
    assert found == {"due": "standard, in time", "plain": "standard, no deadline", "late": "standard, late"}


class Uneven(FakeFleet):
    """A slow engine that holds little and a quick one that holds more."""

    def cost(self, work: Work, place: Place | None = None) -> float:
        return 5.0 if place is not None and place.engine == "slow" else 0.1

    def ttft(self, work: Work, place: Place) -> float:
        return self.cost(work, place)


def test_what_only_a_quick_engine_answers_in_time_goes_there_and_is_not_put_back() -> None:
    policy, fleet = HybridSchedulingPolicy(), Uneven({"chat": {"slow": 4, "quick": 4}})
    fleet.take(work("runs", tokens=9), fleet._place("quick"))
    policy.submit(work("hurry", deadline=3 * SECOND, tokens=10), fleet, SECOND)
    decision = policy.next(fleet, SECOND)
    assert isinstance(decision, Dispatch)
    assert (decision.place.engine, decision.why) == ("quick", "standard, in time")
