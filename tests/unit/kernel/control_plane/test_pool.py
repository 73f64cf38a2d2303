"""Tests of sage_core.kernel.control_plane.pool, through the manager: limits, retries, pauses, engines come and go."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

import msgspec

from sage_core.common.clock import SECOND
from sage_core.common.policies import KeyedScheduler
from sage_core.common.records import Caller, Capacity, EngineInfo, PoolSpec, QueueLimits, Work
from sage_core.kernel.control_plane import events
from sage_core.kernel.control_plane.manager import ControlPlaneManager
from sage_core.kernel.control_plane.pool import RETRIES_MOST, TRIPS_AFTER
from sage_core.testing import Answer, BatchingModel, Simulation, arrivals

T = TypeVar("T", bound=events.Action)


class LastFirst:
    def rank(self, work: Work) -> float:
        return float(-work.arrival)


class Deployment:
    """A manager with one pool, whose engines open at once and are driven by hand."""

    def __init__(self, *, sequences: int = 1, capacity: Capacity | None = None, **pool: object) -> None:
        self.manager = ControlPlaneManager(lambda name: KeyedScheduler(LastFirst() if name == "last" else First()))
        self.capacity = capacity or Capacity(sequences=sequences)
        self.now = 0
        #: Dispatches that have not ended, by request.
        self.running: dict[str, events.DispatchOne] = {}
        self.ends: list[events.End] = []
        self.feed(events.PoolSet(pool=PoolSpec(lane="m", model="m", **pool)))  # type: ignore[arg-type]

    def feed(self, *inputs: events.Input) -> list[events.Action]:
        actions = self.manager.step(inputs, self.now)
        for action in list(actions):
            if isinstance(action, events.DispatchOne):
                self.running[action.request] = action
            elif isinstance(action, events.End):
                self.ends.append(action)
            elif isinstance(action, events.StartEngine):
                info = EngineInfo(
                    id=action.engine, model="m", backend="b", kinds=("rerank",), capacity=self.capacity, identity="i"
                )
                actions += self.feed(events.EngineOpened(engine=action.engine, info=info))
        return actions

    def ask(self, *names: str, size: int = 40, whole: bool = False) -> list[events.Action]:
        asked = events.Outline(
            id="", kind="generate", model="m", lane="m", caller=Caller(), sizes=(size,), max_tokens=8, whole=whole
        )
        outlines = [msgspec.structs.replace(asked, id=name) for name in names]
        return self.feed(*(events.Submitted(outline=outline) for outline in outlines))

    def fail(self, name: str, pause: float = 0.0) -> list[events.Action]:
        ticket = self.running.pop(name).ticket
        return self.feed(events.Broke(ticket=ticket, seconds=0.1, reason="503", again=True, pause=pause))

    def finish(self, name: str, seconds: float = 0.1) -> list[events.Action]:
        return self.feed(events.Completed(ticket=self.running.pop(name).ticket, seconds=seconds, tokens_out=8))

    def outcomes(self) -> list[tuple[str, str]]:
        return [(end.request, end.outcome) for end in self.ends]


class First:
    def rank(self, work: Work) -> float:
        return float(work.arrival)


def of(actions: Sequence[events.Action], kind: type[T]) -> list[T]:
    return [action for action in actions if isinstance(action, kind)]


class TestLimits:
    def test_a_full_line_refuses_and_says_when_to_come_back(self) -> None:
        field = Deployment(min=1, queue=QueueLimits(requests=2))
        field.ask("a", "b", "c", "d")
        assert field.outcomes() == [("d", "rejected")]
        assert field.ends[0].reason == "the queue of model 'm' is full: 2 requests wait"
        assert field.ends[0].retry_after == 5.0

    def test_bytes_that_wait_are_bounded_and_one_request_is_always_taken(self) -> None:
        field = Deployment(queue=QueueLimits(bytes=50))
        field.ask("a")
        field.ask("b", "c", size=40)
        assert field.outcomes() == [("c", "rejected")]

    def test_who_waits_too_long_is_shed_by_the_timer(self) -> None:
        field = Deployment(queue=QueueLimits(wait=2 * SECOND))
        field.ask("a", "b")
        field.now = 2 * SECOND
        field.feed(events.Tick())
        assert field.outcomes() == [("b", "shed")]
        field.finish("a")
        assert field.manager.held == 0

    def test_the_hint_follows_how_fast_the_pool_drains(self) -> None:
        field = Deployment(queue=QueueLimits(requests=3))
        for turn in range(20):
            field.ask(f"r{turn}")
            field.now += SECOND
            field.finish(f"r{turn}", seconds=1.0)
        field.ask("a", "b", "c", "d", "e")
        (refused,) = [end for end in field.ends if end.outcome == "rejected"]
        # Three wait, and about one is served each second.
        assert refused.retry_after is not None
        assert 2.0 <= refused.retry_after <= 5.0

    def test_the_hint_holds_in_the_first_seconds_of_a_burst(self) -> None:
        model = BatchingModel(capacity=Capacity(sequences=16, prefill_tokens=4_096, kv_tokens=100_000))
        line = Simulation(lambda name: KeyedScheduler(First()), [model] * 4, queue=QueueLimits(requests=400))
        line.submit(arrivals("burst", 8_000, 0.1))
        line.submit(arrivals("more", 200, 4.0))
        told: list[float] = []
        last: Answer | None = None
        for answer in sorted(line.run(), key=lambda each: each.call.at):
            if answer.outcome != "rejected":
                last = answer
            elif answer.call.at > 0.1:
                assert last is not None
                assert last.wait is not None
                assert answer.retry_after is not None
                # First come, first served: what waits is served when the last that was taken in is sent.
                told.append(answer.retry_after / (last.call.at + last.wait - answer.call.at))
        assert len(told) > 400
        assert min(told) > 0.3
        assert max(told) < 1.5


class TestAttempts:
    def test_an_attempt_that_failed_goes_to_another_engine(self) -> None:
        field = Deployment(members=2, min=2)
        field.ask("a")
        first = field.running["a"].engine
        field.fail("a")
        assert field.running["a"].engine != first
        field.finish("a")
        assert field.outcomes() == [("a", "done")]
        assert field.manager.held == 0

    def test_the_last_of_three_failures_is_the_callers(self) -> None:
        field = Deployment(sequences=4)
        field.ask("a")
        for _ in range(2):
            field.fail("a")
        assert field.outcomes() == []
        field.fail("a")
        assert field.outcomes() == [("a", "failed")]

    def test_what_has_streamed_is_never_tried_again(self) -> None:
        field = Deployment(members=2, min=2)
        field.ask("a")
        field.feed(events.Started(ticket=field.running["a"].ticket, seconds=0.1))
        field.fail("a")
        assert field.outcomes() == [("a", "failed")]

    def test_retries_end_with_their_budget(self) -> None:
        field = Deployment(sequences=200, members=2, min=2)
        names = [f"r{n}" for n in range(100)]
        field.ask(*names)
        for name in names:
            field.fail(name)
        given_up = sum(outcome == "failed" for _, outcome in field.outcomes())
        assert given_up == 100 - RETRIES_MOST

    def test_an_engine_that_keeps_failing_is_left_alone_and_then_probed(self) -> None:
        field = Deployment(sequences=4)
        field.ask(*(f"r{n}" for n in range(TRIPS_AFTER)))
        for n in range(TRIPS_AFTER):
            field.fail(f"r{n}")
        # The first two were tried again at once, on the only engine; what comes now waits.
        assert list(field.running) == ["r0", "r1"]
        for name in list(field.running):
            ticket = field.running.pop(name).ticket
            field.feed(events.Cancelled(request=name))
            field.feed(events.Broke(ticket=ticket, seconds=0.1, reason="aborted"))
        field.ask("a", "b")
        assert field.running == {}
        field.now = SECOND
        field.feed(events.Tick())
        (probe,) = field.running
        field.finish(probe)
        assert len(field.running) > 0

    def test_an_engine_is_left_alone_for_as_long_as_it_asks(self) -> None:
        field = Deployment(sequences=4)
        field.ask("a")
        field.fail("a", pause=7.0)
        field.now = 7 * SECOND - 1
        field.feed(events.Tick())
        assert field.running == {}
        field.now = 7 * SECOND
        field.feed(events.Tick())
        assert list(field.running) == ["a"]


class TestEngines:
    def test_credits_of_prompt_and_context_tokens_hold_work_back(self) -> None:
        field = Deployment(capacity=Capacity(sequences=9, prefill_tokens=30))
        field.ask("a", "b", "c", size=80)
        assert list(field.running) == ["a"]
        field.feed(events.Started(ticket=field.running["a"].ticket, seconds=0.1))
        assert list(field.running) == ["a", "b"]

    def test_the_prompt_of_a_whole_answer_is_taken_as_read_when_it_should_have_been(self) -> None:
        field = Deployment(capacity=Capacity(sequences=9, prefill_tokens=30))
        (timer,) = of(field.ask("a", "b", size=80, whole=True), events.ArmTimer)
        assert list(field.running) == ["a"]
        assert timer.at is not None
        field.now = timer.at - 1
        assert field.feed(events.Tick()) == [timer]
        field.now = timer.at
        field.feed(events.Tick())
        assert list(field.running) == ["a", "b"]
        # Nothing of it has been seen, so another engine may still try it; its prompt is given back once.
        field.fail("a")
        field.now += SECOND
        field.feed(events.Tick())
        for name in ("a", "b"):
            field.feed(events.Started(ticket=field.running[name].ticket, seconds=0.0))
            field.finish(name)
        assert field.outcomes() == [("a", "done"), ("b", "done")]
        (engine,) = field.manager.pools["m"].engines
        place = field.manager.place(engine)
        assert place is not None
        assert (place.running, place.prefill, place.context, field.manager.held) == (0, 0, 0, 0)

    def test_a_drained_engine_finishes_what_it_holds_and_closes(self) -> None:
        field = Deployment(members=2, min=1)
        field.ask("a")
        engine = field.running["a"].engine
        assert of(field.feed(events.Drain(engine=engine)), events.StopEngine) == []
        field.ask("b")
        assert field.running["b"].engine != engine
        assert [action.engine for action in of(field.finish("a"), events.StopEngine)] == [engine]

    def test_more_engines_open_under_load_and_close_when_they_rest(self) -> None:
        field = Deployment(members=3, idle=10 * SECOND, grow=0.1)
        names = [f"r{n}" for n in range(40)]
        field.ask(*names)
        assert len({action.engine for action in field.running.values()}) > 1
        while field.running:
            field.finish(next(iter(field.running)))
        field.now += 10 * SECOND
        field.feed(events.Tick())
        assert field.manager.pools["m"].engines == {}
        field.ask("again")
        assert list(field.running) == ["again"]

    def test_a_model_without_engines_says_so_at_once(self) -> None:
        field = Deployment(members=0)
        field.ask("a")
        assert [(end.outcome, end.reason, end.retry_after) for end in field.ends] == [
            ("unavailable", "none is configured", None)
        ]
        assert field.manager.held == 0

    def test_a_withdrawn_model_ends_who_waits_and_finishes_who_runs(self) -> None:
        field = Deployment()
        field.ask("a", "b")
        field.feed(events.PoolGone(lane="m"))
        assert field.outcomes() == [("b", "unavailable")]
        field.finish("a")
        assert field.outcomes()[-1] == ("a", "done")
        assert field.manager.pools["m"].engines == {}


class TestPolicies:
    def test_a_switch_loses_nothing_and_orders_anew(self) -> None:
        field = Deployment()
        for name in "abc":
            field.now += 1
            field.ask(name)
        field.feed(events.PolicySet(policy="last"))
        order = []
        while field.running:
            name = next(iter(field.running))
            order.append(name)
            field.finish(name)
        assert order == ["a", "c", "b"]
        assert field.manager.held == 0

    def test_a_pool_that_names_its_policy_keeps_it(self) -> None:
        field = Deployment(policy="last")
        field.feed(events.PolicySet(policy=""))
        for name in "abc":
            field.now += 1
            field.ask(name)
        field.finish("a")
        assert list(field.running) == ["c"]
