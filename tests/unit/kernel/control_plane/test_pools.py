"""Tests of sage_core.kernel.control_plane.pools, beside those of the manager and of one pool."""

from __future__ import annotations

from sage_core.common.clock import SECOND
from sage_core.common.records import PoolSpec
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


def test_a_pool_that_rests_arms_no_timer() -> None:
    field = Deployment(min=1, idle=SECOND)
    field.ask("a")
    field.finish("a")
    field.now = 5 * SECOND
    armed = of(field.feed(events.Tick()), events.ArmTimer)
    assert [action.at for action in armed] in ([], [None])
