"""Tests of sage_core.kernel.control_plane.pools, beside those of the manager and of one pool."""

from __future__ import annotations

from sage_core.common.clock import SECOND
from sage_core.common.records import Caller, Capacity, PoolSpec
from sage_core.kernel.control_plane import events
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


def test_a_pool_that_rests_arms_no_timer() -> None:
    field = Deployment(min=1, idle=SECOND)
    field.ask("a")
    field.finish("a")
    field.now = 5 * SECOND
    armed = of(field.feed(events.Tick()), events.ArmTimer)
    assert [action.at for action in armed] in ([], [None])
