"""Tests of sage_core.kernel.control_plane.pools, beside those of the manager and of one pool."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from sage_core.common.clock import SECOND
from sage_core.common.contracts import Scheduler
from sage_core.common.errors import UnknownName
from sage_core.common.records import Caller, Candidate, Capacity, Needs, PoolSpec, Work
from sage_core.kernel.control_plane import events
from sage_core.kernel.control_plane.backlog import fifo
from sage_core.kernel.control_plane.manager import ControlPlaneManager
from sage_core.testing.virtual import EngineModel, VirtualDriver
from tests.unit.kernel.control_plane.test_conservation import Hesitant
from tests.unit.kernel.control_plane.test_pool import Deployment, of


def test_the_lane_of_token_limits_belongs_to_the_pool_beside_it() -> None:
    field = Deployment()
    field.feed(events.Cancelled(request="nobody"))
    assert list(field.manager.pools) == ["m"]


def test_as_many_engines_are_kept_open_as_the_pool_says() -> None:
    field = Deployment(members=3, min=2)
    assert [standing.state for standing in field.manager.pools["m"].engines.values()] == ["up", "up"]
    started = field.feed(events.PoolSet(pool=PoolSpec(lane="m", model="m", members=3, min=3)))
    assert len(of(started, events.StartEngine)) == 1


def test_what_waits_for_a_model_that_is_gone_ends_also_while_its_last_engine_still_works() -> None:
    field = Deployment()
    field.ask("runs", "waits")
    field.feed(events.PoolGone(lane="m"))
    assert field.outcomes() == [("waits", "unavailable")]
    field.ask("late")
    assert field.outcomes()[1:] == [("late", "unavailable")]
    field.finish("runs")
    assert field.outcomes()[2:] == [("runs", "done")]
    assert field.manager.held == 0


def test_an_embed_request_of_which_a_part_runs_ends_with_its_model() -> None:
    field = Deployment(capacity=Capacity(batch_rows=1))
    texts = tuple("abc")
    outline = events.Outline(id="e", kind="embed", model="m", lane="m", caller=Caller(), sizes=(1, 1, 1), keys=texts)
    (batch,) = of(field.feed(events.Submitted(outline=outline)), events.DispatchBatch)
    field.feed(events.PoolGone(lane="m"))
    assert field.outcomes() == [("e", "unavailable")]
    field.feed(events.Broke(ticket=batch.ticket, seconds=0.0, reason="aborted"))
    assert field.manager.held == 0


def test_no_engine_closes_for_want_of_work_while_something_waits() -> None:
    field = Deployment(members=2, idle=0, grow=0.0)
    started = of(field.ask("a", "b", "c"), events.StartEngine)
    assert len(started) == 2
    field.now = 1
    assert of(field.feed(events.Tick()), events.StopEngine) == []


def test_an_engine_that_asked_for_a_pause_is_left_alone_though_another_answer_ends_well() -> None:
    field = Deployment(sequences=2)
    field.ask("a", "b", "c")
    field.fail("a", pause=5.0)
    field.finish("b")
    assert field.running == {}
    field.now = 5 * SECOND
    field.feed(events.Tick())
    assert set(field.running) == {"a", "c"}


def test_an_engine_that_drains_is_sent_nothing_more_when_its_probe_ends_well() -> None:
    field = Deployment()
    field.ask("a")
    for _ in range(3):
        field.fail("a")
    field.ask("b", "c")
    assert field.running == {}
    field.now = 60 * SECOND
    field.feed(events.Tick())
    (probe,) = field.running
    field.feed(events.Drain(engine="m#1"))
    stopped = field.finish(probe)
    assert "m#1" in [action.engine for action in of(stopped, events.StopEngine)]
    assert {action.engine for action in field.running.values()} <= {"m#2"}


def test_a_policy_that_cannot_be_made_takes_no_request_along() -> None:
    def policies(name: str) -> Scheduler:
        if name == "typo":
            raise UnknownName("scheduler", name, ("first",))
        return fifo()

    manager = ControlPlaneManager(policies)
    manager.step([events.PoolSet(pool=PoolSpec(lane="a", policy="typo")), events.PoolSet(pool=PoolSpec(lane="b"))], 0)
    assert manager.faults == ("'typo': it cannot be made, and fifo decides instead",)
    for policy in (
        events.PolicySet(policy="typo"),
        events.PolicySet(policy="typo", lane="b"),
        events.PoolSet(pool=PoolSpec(lane="b", policy="typo")),
    ):
        before = manager.pools["b"].backlog.policy
        manager.step([policy], 1)
        assert (manager.pools["b"].backlog.policy, manager.pools["b"].spec.policy) == (before, "")
    manager.step([events.PolicySet(policy="first", lane="a")], 2)
    assert not manager.faults


class Refuses:
    """A selector that admits no engine."""

    def pick(self, work: Work, needs: Needs, candidates: Sequence[Candidate]) -> Candidate | None:
        return None


def test_what_no_selector_admits_to_any_engine_is_told_so_and_does_not_wait_for_ever() -> None:
    driver = VirtualDriver(ControlPlaneManager(selector=Refuses()), EngineModel())
    for name in "ab":
        outline = events.Outline(id=name, kind="rerank", model="m", lane="m", caller=Caller(), sizes=(4,))
        driver.submit(1, outline)
    driver.advance()
    ends = [action for _, action in driver.actions if isinstance(action, events.End)]
    assert [(end.request, end.outcome) for end in ends] == [("a", "unavailable"), ("b", "unavailable")]
    assert ends[0].reason == "the node selector admits none of the engines that are up"
    assert driver.manager.held == 0


def test_a_policy_that_waits_is_woken_as_often_as_it_asks_and_not_more() -> None:
    class Counted(ControlPlaneManager):
        steps = 0

        def step(self, inputs: Iterable[events.Input], now: int) -> list[events.Action]:
            self.steps += 1
            return super().step(inputs, now)

    manager = Counted(lambda name: Hesitant())
    driver = VirtualDriver(manager, EngineModel())
    for number in range(3):
        outline = events.Outline(id=f"r{number}", kind="rerank", model="m", lane="m", caller=Caller(), sizes=(4,))
        driver.submit(number, outline)
    driver.advance()
    assert len([action for _, action in driver.actions if isinstance(action, events.End)]) == 3
    # Three arrivals, one engine, three wake-ups at most, and three ends.
    assert manager.steps <= 10


def test_a_pool_that_rests_arms_no_timer() -> None:
    field = Deployment(min=1, idle=SECOND)
    field.ask("a")
    field.finish("a")
    field.now = 5 * SECOND
    armed = of(field.feed(events.Tick()), events.ArmTimer)
    assert [action.at for action in armed] in ([], [None])
