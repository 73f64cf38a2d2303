"""The guard around a policy: what it may not do is named, fifo takes over, and no work is lost."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import pytest

from sage_core.common.contracts import Fleet
from sage_core.common.records import (
    Caller,
    Decision,
    Dispatch,
    Event,
    Idle,
    Place,
    Queued,
    Rejected,
    Shed,
    Verdict,
    Withdrawn,
    Work,
)
from sage_core.kernel.control_plane.backlog import PATIENCE, Backlog, fifo
from sage_core.kernel.control_plane.events import End, Outline
from sage_core.kernel.control_plane.manager import ControlPlaneManager
from sage_core.testing.fleet import FakeFleet
from sage_core.testing.virtual import EngineModel, VirtualDriver


class Policy:
    """Fifo with one fault, to be caught."""

    def __init__(self, fault: str = "") -> None:
        self.fault = fault
        self.inner = fifo()
        self.seen: list[Event] = []
        self.last: Dispatch | None = None

    def submit(self, work: Work, fleet: Fleet, now: int) -> Verdict:
        if self.fault == "submit raises":
            raise ZeroDivisionError("submit")
        verdict = self.inner.submit(work, fleet, now)
        return None if self.fault == "no verdict" else verdict  # type: ignore[return-value]

    def next(self, fleet: Fleet, now: int) -> Decision:
        if self.fault == "next raises":
            raise ZeroDivisionError("next")
        if self.fault == "never settles":
            return Idle(until=now)
        if self.fault == "loses work":
            return Idle()
        if self.fault == "twice" and self.last is not None:
            return self.last
        decision = self.inner.next(fleet, now)
        if isinstance(decision, Dispatch):
            self.last = decision
            if self.fault == "unknown place":
                return Dispatch(work=decision.work, place=Place(engine="nowhere"))
            if self.fault == "no place":
                return Dispatch(work=decision.work, place=None)  # type: ignore[arg-type]
        return None if self.fault == "no decision" else decision  # type: ignore[return-value]

    def observe(self, event: Event, now: int) -> None:
        if self.fault == "observe raises":
            raise ZeroDivisionError("observe")
        self.seen.append(event)
        self.inner.observe(event, now)


FAULTS = {
    "submit raises": "submit raised ZeroDivisionError: submit",
    "no verdict": "submit returned None, no Verdict",
    "next raises": "next raised ZeroDivisionError: next",
    "no decision": "next returned None, which is no Decision",
    "observe raises": "observe raised ZeroDivisionError: observe",
    "never settles": f"asked {PATIENCE} times to be woken at once and decided nothing",
    "loses work": "lost work",
    "twice": "which is not queued",
    "unknown place": "does not serve lane",
    "no place": "to None, which is no Place",
}


def work(name: str, arrival: int = 0) -> Work:
    return Work(id=name, lane="chat", kind="generate", arrival=arrival)


def backlog(
    policy: object, *, valid: Callable[[Work, Place], str] = lambda work, place: "", alone: bool = True
) -> Backlog:
    return Backlog(policy, FakeFleet({"chat": {"gpu": 1}}), valid, lambda: alone)  # type: ignore[arg-type]


@pytest.mark.parametrize("fault", FAULTS)
def test_a_broken_policy_is_named_and_replaced_and_loses_nothing(fault: str, caplog: pytest.LogCaptureFixture) -> None:
    driver = VirtualDriver(ControlPlaneManager(lambda name: Policy(fault)), EngineModel())
    for n in range(5):
        fields = {"model": "m", "lane": "m", "caller": Caller(), "sizes": (6,)}
        driver.submit(n, Outline(id=f"e{n}", kind="embed", keys=(f"text {n}",), **fields))  # type: ignore[arg-type]
        driver.submit(n, Outline(id=f"g{n}", kind="generate", max_tokens=4, **fields))  # type: ignore[arg-type]
    driver.advance()
    assert Counter(action.outcome for _, action in driver.actions if isinstance(action, End)) == {"done": 10}
    (said,) = driver.manager.faults
    assert said.startswith("Policy: ")
    assert FAULTS[fault] in said
    assert [record.action for record in caplog.records] == ["policy_replaced"]  # type: ignore[attr-defined]
    assert driver.manager.held == 0


def test_a_sound_policy_stays_and_is_told_everything() -> None:
    policy = Policy()
    waiting = backlog(policy)
    assert waiting.submit(work("a"), 0) == Queued()
    waiting.withdraw(work("a"), 1)
    assert waiting.decide(2) == Idle()
    assert policy.seen == [Withdrawn(work=work("a"))]
    assert (waiting.policy, waiting.faults) == (policy, [])


def test_what_left_the_backlog_is_not_withdrawn_from_the_policy_again() -> None:
    policy = Policy()
    waiting = backlog(policy)
    waiting.submit(work("a"), 0)
    assert isinstance(waiting.decide(0), Dispatch)
    waiting.withdraw(work("a"), 1)
    assert policy.seen == []


def test_a_dispatched_a_shed_and_a_rejected_work_are_not_queued() -> None:
    class Strict(Policy):
        def submit(self, work: Work, fleet: Fleet, now: int) -> Verdict:
            return Rejected(reason="full") if work.id == "c" else super().submit(work, fleet, now)

        def next(self, fleet: Fleet, now: int) -> Decision:
            decision = super().next(fleet, now)
            if isinstance(decision, Dispatch) and decision.work.id == "b":
                return Shed(work=decision.work, reason="overload")
            return decision

    waiting = backlog(Strict())
    verdicts = [waiting.submit(work(name), 0) for name in "abc"]
    assert verdicts == [Queued(), Queued(), Rejected(reason="full")]
    assert [each.id for each in waiting.works()] == ["a", "b"]
    assert [type(waiting.decide(0)) for _ in range(3)] == [Dispatch, Shed, Idle]
    assert (len(waiting), "a" in waiting) == (0, False)


def test_the_queue_of_a_replaced_policy_is_resubmitted_in_order_of_arrival() -> None:
    policy = Policy()
    waiting = backlog(policy)
    for name, arrival in (("late", 9), ("early", 1), ("middle", 5)):
        waiting.submit(work(name, arrival), 10)
    policy.fault = "next raises"
    decided = [waiting.decide(11) for _ in range(3)]
    assert [each.work.id for each in decided if isinstance(each, Dispatch)] == ["early", "middle", "late"]


def test_idling_beside_a_running_dispatch_or_until_a_time_loses_nothing() -> None:
    busy = backlog(Policy("loses work"), alone=False)
    busy.submit(work("a"), 0)
    assert busy.decide(0) == Idle()
    assert busy.faults == []

    patient = backlog(Policy("never settles"))
    patient.submit(work("a"), 0)
    assert [patient.decide(0) for _ in range(PATIENCE - 1)] == [Idle(until=0)] * (PATIENCE - 1)
    patient.submit(work("b"), 0)
    assert patient.decide(0) == Idle(until=0)
    assert patient.faults == []


def test_a_policy_of_last_resort_that_fails_is_a_defect_and_not_replaced_for_ever() -> None:
    waiting = backlog(Policy("next raises"), valid=lambda work, place: "no")
    waiting.submit(work("a"), 0)
    with pytest.raises(RuntimeError, match="the fallback scheduler failed: no"):
        waiting.decide(0)
