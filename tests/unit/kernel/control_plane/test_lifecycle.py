"""Tests of sage_core.kernel.control_plane.lifecycle, beside those of the manager, through which all of it runs."""

from __future__ import annotations

import gc

from sage_core.common.clock import SECOND
from sage_core.common.records import EngineInfo, PoolSpec, Rejected
from sage_core.kernel.control_plane import events
from sage_core.kernel.control_plane.lifecycle import no_engine, rejection
from tests.unit.kernel.control_plane.test_pool import Deployment, of


def test_who_finds_no_engine_is_told_why_and_when_the_next_attempt_is_due() -> None:
    field = Deployment()
    pool = field.manager.pools["m"]
    assert no_engine(pool, 0).reason == "none is configured"
    for _ in range(4):
        pool.stumbled(0, "no weights", 0)
    fate = no_engine(pool, SECOND)
    assert (fate.outcome, fate.reason, fate.retry_after) == ("unavailable", "no weights", 3.0)


def test_a_verdict_against_a_work_becomes_its_fate() -> None:
    fate = rejection(Rejected(reason="full", retry_after=2.0))
    assert (fate.outcome, fate.reason, fate.retry_after) == ("rejected", "full", 2.0)


def test_a_stream_that_has_begun_is_never_begun_again() -> None:
    field = Deployment(members=2, min=2)
    field.ask("a")
    field.feed(events.Started(ticket=field.running["a"].ticket, seconds=0.1))
    sent = field.fail("a")
    assert of(sent, events.DispatchOne) == []
    assert field.outcomes() == [("a", "failed")]
    assert field.manager.held == 0


def test_an_engine_of_a_pool_that_is_gone_is_not_taken_in_any_more() -> None:
    field = Deployment()
    field.manager.step([events.PoolSet(pool=PoolSpec(lane="x", model="x", min=1))], 0)
    (engine,) = field.manager.pools["x"].engines
    field.manager.step([events.PoolGone(lane="x")], 1)
    info = EngineInfo(id=engine, model="x", backend="b", kinds=("rerank",), capacity=field.capacity, identity="i")
    field.manager.step([events.EngineOpened(engine=engine, info=info)], 2)
    assert field.manager.place(engine) is None


def test_a_request_that_has_ended_leaves_nothing_for_the_garbage_collection() -> None:
    field = Deployment()
    field.ask("first")
    field.finish("first")
    gc.collect()
    gc.disable()
    try:
        for number in range(20):
            field.ask(f"{number}")
            field.finish(f"{number}")
        gc.set_debug(gc.DEBUG_SAVEALL)
        gc.collect()
        left = {type(each).__name__ for each in gc.garbage}
    finally:
        gc.set_debug(0)
        gc.garbage.clear()
        gc.enable()
    assert left.isdisjoint({"Live", "Flight", "Outline"})
